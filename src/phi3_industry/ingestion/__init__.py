"""Documents and tables become nodes.

`read_document` reads a file of any known kind, `list_folder` finds the files of a folder, and
`SectionNodeParser` makes nodes of them.
"""

from phi3_industry.ingestion.folder import FolderListing, list_folder
from phi3_industry.ingestion.limits import DEFAULT_LIMITS, ReadLimits
from phi3_industry.ingestion.node_parser import SectionNodeParser
from phi3_industry.ingestion.pipelines import FileNodeParser
from phi3_industry.ingestion.readers import KNOWN_ENDINGS, parse_document, read_bytes, read_document
from phi3_industry.ingestion.source import SourceDocument, TextBlock
from phi3_industry.ingestion.summaries import LLMSummaries, OutlineSummaries
from phi3_industry.ingestion.tables import Table, row_text

__all__ = [
    "DEFAULT_LIMITS",
    "KNOWN_ENDINGS",
    "FileNodeParser",
    "FolderListing",
    "LLMSummaries",
    "OutlineSummaries",
    "ReadLimits",
    "SectionNodeParser",
    "SourceDocument",
    "Table",
    "TextBlock",
    "list_folder",
    "parse_document",
    "read_bytes",
    "read_document",
    "row_text",
]
