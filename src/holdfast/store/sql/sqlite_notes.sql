-- name: note
INSERT INTO notes (kind, about, id, at_ns, data) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (kind, about, id) DO UPDATE SET at_ns = excluded.at_ns, data = excluded.data;

-- name: trim_notes
DELETE FROM notes WHERE (kind, about, id) IN (
    SELECT kind, about, id FROM notes WHERE kind = ? AND about = ? ORDER BY at_ns DESC, id DESC LIMIT -1 OFFSET ?
);

-- name: notes
SELECT kind, about, id, at_ns, data FROM notes WHERE kind = ? AND about = ? ORDER BY at_ns DESC, id DESC;

-- name: forget_notes
DELETE FROM notes WHERE kind = ? AND about = ?;
