#!/bin/sh
# The compiled kernels for arm64, built and tested on another machine: `make test-aarch64`, or
#
#     tests/aarch64.sh PYTHON FOLDER [pytest's arguments]
#
# On Debian with gcc-aarch64-linux-gnu and qemu-user. Python for arm64 comes from Debian, NumPy and pytest from PyPI;
# all of it stays in FOLDER. The emulated Python runs setup.py, whose compiler is a native one.
set -eu
python=$1
folder=$(mkdir -p "$2" && cd "$2" && pwd)
shift 2
[ $# -gt 0 ] || set -- tests/test_parity.py
here=$(cd "$(dirname "$0")/.." && pwd)
root=$folder/root
site=$folder/site

# A package database of its own: the system's is neither asked nor changed.
of_arm64() {
    apt-get --quiet=2 -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State="$folder/apt" \
        -o Dir::State::status=/dev/null -o Dir::Cache="$folder/apt" -o Debug::NoLocking=1 \
        -o APT::Sandbox::User="$(id -un)" "$@"
}

emulated() {
    PYTHONHOME=$root/usr PYTHONPATH=$folder/lib:$site \
        qemu-aarch64 -L "$root" "$(readlink -f "$root/usr/bin/python3")" "$@"
}

if [ ! -e "$folder/complete" ]; then
    mkdir -p "$folder/apt/lists/partial" "$folder/apt/archives/partial" "$root" "$site"
    of_arm64 update
    of_arm64 --yes --download-only --no-install-recommends install python3-dev libstdc++6
    for package in "$folder"/apt/archives/*.deb; do dpkg-deb --extract "$package" "$root"; done
    version=$(emulated -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    "$python" -m pip install --quiet --target "$site" --python-version "$version" --implementation cp \
        --only-binary=:all: --platform manylinux2014_aarch64 --platform manylinux_2_27_aarch64 \
        --platform manylinux_2_28_aarch64 \
        cython hypothesis mpmath numpy pytest pytest-benchmark pytest-timeout setuptools
    touch "$folder/complete"
fi

cd "$here"
# The headers of the C library are the cross compiler's own; those of Python, found last, belong to the emulated one.
export FASTNN_BUILD=require FASTNN_CFLAGS="-idirafter $root/usr/include"
emulated setup.py --quiet build --build-lib "$folder/lib" --build-temp "$folder/temp"
emulated -P -m pytest -p no:cacheprovider --backend=cython "$@"
