"""The fuzz: drawn calls of every operation, played on an engine in a child that may die.

`make fuzz` runs it; tests/fuzz/__main__.py says how to bound it and how to play a finding again.

    damage   arguments bent until they no longer fit
    draw     sequences of calls, drawn from samples and from what the session holds by then
    stage    an engine with two sessions, one of which is attacked; what must never show, change or be held
    journal  the memory in which a child says what it is about to do
    watch    children, their ends, and the shortest sequence that does it again
    served   the same sequences on a real server
"""
