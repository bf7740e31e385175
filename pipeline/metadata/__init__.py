"""The metadata of an image: the record, its views, reading it back, and the file's path.

    record      the recipe of one image, the only canonical form
    building    GeneratedImage -> Record
    settings    how much of the record goes into the file
    infotext    the A1111 text, a lossy view for other tools
    exif, xmp   the two standard blocks; png: text chunks
    encoding    pixels and record -> the bytes of a finished file
    containers  the chunks and segments of a finished file
    reading     file -> record; foreign: what another program wrote; verifying: the same, before a row is written
    leaks       refuses bytes that name a person, a machine or a key
    naming      settings and record -> relative path; safe_names: what every file system accepts
    files       temporary name, fsync, rename without ever overwriting; saving: all of it in one call

Nothing is imported here, so that a module can be used without paying for the others.
"""
