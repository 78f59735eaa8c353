#!/bin/sh
# Make the environment of the other routers: benchmarks/routing/peers/environment.sh FOLDER
#
# Every version is pinned and nothing is resolved, so no CUDA and no server packages come along.
# PyTorch for processors alone is not on the package index: it is taken from UV_FIND_LINKS or
# PIP_FIND_LINKS if one of them is set, and from PyTorch's own index otherwise.
set -eu
folder=${1:?usage: environment.sh FOLDER}
here=$(dirname "$0")
export UV_FIND_LINKS="${UV_FIND_LINKS:-${PIP_FIND_LINKS:-}}"
export UV_COMPILE_BYTECODE=1
uv venv --quiet --python 3.11 "$folder"
set -- --python "$folder/bin/python" --no-deps --requirement "$here/requirements.txt"
[ -n "$UV_FIND_LINKS" ] || set -- --torch-backend cpu "$@"
uv pip install --quiet "$@"
"$folder/bin/python" -c "import sys; assert sys.version_info[:2] == (3, 11), sys.version"
echo "$folder/bin/python"
