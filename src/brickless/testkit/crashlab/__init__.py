"""The crash lab: every power cut that an update could meet, judged one by one.

A guest's disk is recorded write by write (`writelog`); from the record come the states that a power cut may leave
(`states`); each is built as an image (`images`) and judged on the host (`judge`, which reads it with e2fsprogs); a
sample of them is booted to the end (`boots`). `cases` says what is recorded, `campaign` runs all of it.
The oracle: old or new, whole, and nothing of the user's lost. Never anything else.
"""
