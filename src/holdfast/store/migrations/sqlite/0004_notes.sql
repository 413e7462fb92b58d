CREATE TABLE notes (
    kind  TEXT NOT NULL,
    about TEXT NOT NULL,
    id    TEXT NOT NULL,
    at_ns INTEGER NOT NULL,
    data  BLOB NOT NULL,
    PRIMARY KEY (kind, about, id)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER forget_session_notes AFTER DELETE ON sessions BEGIN
    DELETE FROM notes WHERE kind = 'latch' AND about = old.id;
END;
