"""What Python offers as `bascule.<verb>`: one file per verb, which takes what somebody has and hands it to the rooms.

Above all other rooms but the command line. `bascule/__init__.pyi` lists what is offered; a verb that is not named there
is none.
"""
