"""The command line. `main` has the verbs and their options; each verb's work is a file of its own, loaded when it runs."""
