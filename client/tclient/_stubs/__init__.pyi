# Types of what the table of operations gives, for editors and type checkers. There is nothing here at runtime.
