//! app.ini, read into one validated type for each binary.
