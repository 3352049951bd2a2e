"""Stand-ins for schedulers that cannot be had here: their commands, in miniature.

Each takes the documented options and refuses all others, in the real one's words and with its exit
status; keeps its state in the folder ``$STANDIN``; and really runs the jobs, as processes of this
machine. What they answer is in the form of samples of the real ones' output.

``bin/NAME/COMMAND`` are links to ``front.py``, which calls the function of that name in
``NAME.py``.
"""
