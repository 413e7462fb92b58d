CREATE TABLE notes (
    kind  text COLLATE "C" NOT NULL,
    about text COLLATE "C" NOT NULL,
    id    text COLLATE "C" NOT NULL,
    at_ns bigint NOT NULL,
    data  bytea NOT NULL,
    PRIMARY KEY (kind, about, id)
);

CREATE FUNCTION forget_session_notes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM notes WHERE kind = 'latch' AND about = old.id;
    RETURN NULL;
END $$;

CREATE TRIGGER forget_session_notes AFTER DELETE ON sessions
FOR EACH ROW EXECUTE FUNCTION forget_session_notes();
