"""The language of programs: its words, the interpreter that runs one function of a program, what a program is asked."""
