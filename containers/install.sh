#!/bin/sh
# What both roles install while an image is built: sh containers/install.sh cpu|cuda, from the workflow's folder.
# Wheels in /wheels are used instead of the network, if there are any.
set -eu
missing=""
python3 -c 'import venv, ensurepip' 2>/dev/null || missing="python3-venv"
ldconfig -p | grep -q libgomp || missing="$missing libgomp1" # LightGBM's OpenMP runtime
if [ -n "$missing" ]; then
  apt-get update
  # shellcheck disable=SC2086 # two names
  apt-get install -y --no-install-recommends $missing
  rm -rf /var/lib/apt/lists/*
fi
python3 -m venv /opt/libranas
python3 envs/pins.py "$1" >/tmp/pins.txt
from=""
if [ -d /wheels ]; then
  grep -v '^--extra-index-url' /tmp/pins.txt >/tmp/wheels.txt
  mv /tmp/wheels.txt /tmp/pins.txt
  from="--no-index --find-links /wheels"
fi
# shellcheck disable=SC2086
/opt/libranas/bin/python -m pip install --no-cache-dir $from --requirement /tmp/pins.txt
# The package itself, where it lies; setuptools is among the pins.
/opt/libranas/bin/python -m pip install --no-cache-dir --no-index --no-deps --no-build-isolation --editable .
rm /tmp/pins.txt
mkdir -p /work
chmod 1777 /work
