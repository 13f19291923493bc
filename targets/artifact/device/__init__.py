"""The parts of an artifact's ``run.py``, in the order in which ``runner.py`` pastes them together.

They run on a device as one file, so they need the standard library and numpy alone, name nothing twice, and
write what Python 3.8 reads.  Some of them are rules that a compile shares: what may be printed, how a table
is written and read, how a cell reads, how a gap is filled, how data are scaled.

    start        what the file is; when the process began
    errors       the closed list of errors and exit codes
    text         (compiler/base) what may be printed
    dialect      (compiler/data) how a table is written
    cells        (compiler/data) what one cell says: nothing, a number, a time
    filling      (compiler/data) how an empty stretch is filled
    reading      (compiler/data) what is done about gaps, repeated times, order and local time
    scaling      (compiler/data) raw units to scaled units and back
    files        safe names, caps, contents that are what was hashed
    strict       JSON without surprises
    manifest     the fields that running needs
    check        every file against its hash
    signature    the files against a public key
    steps        the artifact's step, counted and added
    rows         the last rows of a table become a window
    output       the forecast becomes rows
    engine       the target's class Engine
    forecaster   from raw units to raw units, and the self-test
    host         the machine in words
    portable     the teacher that came along, on onnxruntime
    modes        whether samples gather around more than one time
    rounds       how candidates take turns in the two scenarios of the latency rule
    timings      percentiles, and a ratio with its interval
    scenarios    one scenario after the other, and their records
    bench        load time, memory, latency
    cli          the command line
"""
