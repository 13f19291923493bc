#!/bin/sh
# A second opinion: NVIDIA's own trtexec on the same model.  It neither writes nor reads model.engine.
# trtexec's defaults differ between TensorRT 10 and 11, so what matters is asked for by name.
set -eu
cd "$(dirname "$0")"
trtexec=${TRTEXEC:-$(command -v trtexec || echo /usr/src/tensorrt/bin/trtexec)}
if [ ! -x "$trtexec" ]; then
    echo "no trtexec at $trtexec; set TRTEXEC=/path/to/trtexec, or use build_engine.py" >&2
    exit 3
fi
help=$("$trtexec" --help 2>&1 || true)
set -- --onnx=model.onnx --saveEngine=model.trtexec.engine @SHAPES@
for flag in --stronglyTyped --noTF32 --useCudaGraph --useSpinWait; do
    case $help in *"$flag"*) set -- "$@" "$flag" ;; esac
done
echo "$trtexec $*" >&2
exec "$trtexec" "$@" --warmUp=500 --iterations=1024 --percentile=50,90,99
