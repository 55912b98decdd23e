"""Load: many callers at once, at a given rate, or for a long time.

    make load HOST=127.0.0.1:50051 USERS=16 TIME=20s    closed loop: users who each wait for their answer (locust)
    python -m tests.load.openloop HOST --rate 1000      open loop: requests come when they come, answered or not
    python -m tests.load.sweep HOST --p99-ms 50         the highest rate that the server bears, and a picture
    make soak N=1000000                                 many requests: no error, and no memory lost

A closed loop tells what a server gives to callers who wait: when it stalls, they ask less. An open loop tells what
callers get who do not know of each other: a latency counts from the moment when the request should have left, so a
stall is paid by all who come meanwhile.
"""
