"""The commands of `tclient` that look at a server: each a function of the options that were given.

asking      the options of a connection, and what asks the server
showing     tables and JSON, with rich where that is there
looking     ping, info, sessions, tensors, models
top         what happens now, again and again
bench       how fast it is
"""
