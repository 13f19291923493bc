"""What a kill, a full disk, a second compile and a jumping clock leave behind.

world.py      a folder with small inputs, commands in forked children, and what must hold afterwards
scenarios.py  the disasters, each a generator of findings
"""
