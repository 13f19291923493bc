"""An attack on every format that tsfmc reads: structure-aware, seeded, and judged by what a reader may do.

    corpus.py     one small real specimen of every format, and the readers it is handed to
    documents.py  JSON, TOML, safetensors and npy headers as trees that can be changed and written again
    edits.py      what can be done to a file, each a JSON object: so a mutant is data and can be kept
    draw.py       drawing edits that fit a format
    seals.py      redoing the hashes, as an attacker does who knows the format
    child.py      one mutant in a process of its own, bounded in time and memory
    judge.py      which outcomes are allowed
    campaign.py   many mutants, the counts by format, the cases that are kept

``benchmarks/fuzz.py`` runs it; ``cases/`` holds what was once found and stays mended.
"""
