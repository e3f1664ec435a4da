"""The report: one page about one run or several, made from what lies in their folders alone.

Reads the files that `docs/run_folder.md` describes and imports neither torch, ray nor flwr, so it
opens runs of any strategy, of other versions, and such as are not over.
"""
