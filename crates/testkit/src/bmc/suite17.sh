#!/bin/bash
# One BMC over IPMI 2.0 with cipher suite 17, as PID 1 of its own namespaces.
# usage (as the child of unshare): suite17.sh ADDRESS DIR PYTHON PROGRAM, with PASSWORD in the environment. Standard input closing ends it.
set -e
address=$1 dir=$2 python=$3 program=$4
mount --make-rprivate /
mount -t proc proc /proc
cd "$dir"
printf %s "$program" >suite17.py
exec "$python" suite17.py "$address" 2>log
