"""Every form in which a student runs, held to one truth: the student in float64.

    students.py  drawing students of every form, with weights that are not nice
    windows.py   drawing windows of every kind
    engines.py   the forms: torch float32, onnxruntime, TVM's library and virtual machine, ...
    compare.py   by how much they may differ, and what else must hold

How much rounding a case allows is measured on the case: torch in float32 against torch in float64, on the
very windows.  A correct but ill-conditioned student passes, and a wrong but well-conditioned one does not.
"""
