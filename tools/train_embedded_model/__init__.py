"""Train, score and describe the embedded default checkpoint of phi3_industry.

``python -m tools.train_embedded_model --help`` lists the commands. Nothing of this folder is
imported by the package.
"""
