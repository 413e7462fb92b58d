-- What a coord asks of PostgreSQL, 14 or later. Nothing here is kept for long, and the tables are unlogged. A schema that is
-- there is never touched: whatever changes in it takes the next number.

-- name: known
SELECT to_regnamespace('holdfast_coord_1') IS NOT NULL

-- name: schema
CREATE SCHEMA holdfast_coord_1;

-- `tat` is the moment a limit is full again, in microseconds since 1970, with a `rest` in parts of one; `gate` is when the
-- last gate opens, or 0; `forget` is when to forget it all. None of them is indexed, so that an update stays in its page.
CREATE UNLOGGED TABLE holdfast_coord_1.limits (
  key bytea PRIMARY KEY,
  tat bigint NOT NULL DEFAULT 0,
  rest bigint NOT NULL DEFAULT 0,
  gate bigint NOT NULL DEFAULT 0,
  forget bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 70);

CREATE UNLOGGED TABLE holdfast_coord_1.probes (
  id text PRIMARY KEY,
  key bytea NOT NULL,
  until bigint NOT NULL
);

CREATE UNLOGGED TABLE holdfast_coord_1.replicas (
  id text PRIMARY KEY,
  namespace text NOT NULL,
  until bigint NOT NULL
);

CREATE UNLOGGED TABLE holdfast_coord_1.moves (
  at bigint PRIMARY KEY,
  namespace text NOT NULL,
  sender text NOT NULL,
  move text NOT NULL
);

CREATE FUNCTION holdfast_coord_1.now() RETURNS bigint LANGUAGE sql VOLATILE AS
  $$ SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint $$;

-- Spends units of several limits; where all must fit and do not, of none. `keys` are sorted, and rows are locked in their
-- order, so that no two can each wait for the other. `amounts` has seven numbers for each key: parts of a microsecond; cost,
-- burst and burst - 1, each as microseconds and a rest in parts.
CREATE FUNCTION holdfast_coord_1.spend(
  keys bytea[], must_fit boolean, gate_us bigint, amounts bigint[], OUT worst integer, OUT longest bigint
) LANGUAGE plpgsql AS $$
DECLARE
  now bigint;
  tat bigint; rest bigint; gate bigint; parts bigint; shut bigint; gap_rest bigint; wait bigint;
  tats bigint[]; rests bigint[]; gates bigint[]; forgets bigint[];
  a integer;
BEGIN
  worst := 0;
  longest := 0;
  FOR i IN 1 .. cardinality(keys) LOOP
    LOOP
      SELECT l.tat, l.rest, l.gate INTO tat, rest, gate FROM holdfast_coord_1.limits l WHERE l.key = keys[i] FOR UPDATE;
      EXIT WHEN FOUND;
      INSERT INTO holdfast_coord_1.limits (key) VALUES (keys[i]) ON CONFLICT DO NOTHING;
    END LOOP;
    tats[i] := tat; rests[i] := rest; gates[i] := gate;
  END LOOP;
  now := holdfast_coord_1.now();  -- Once every row is ours: what comes while we wait for one is not lost.
  FOR i IN 1 .. cardinality(keys) LOOP
    tat := tats[i]; rest := rests[i]; gate := gates[i];
    a := 7 * i - 6;
    parts := amounts[a];
    IF rest >= parts THEN  -- The limit has another rate now, and other parts.
      tat := tat + 1; rest := 0;
    END IF;
    IF tat < now THEN
      tat := now; rest := 0;
    END IF;
    IF gate_us >= 0 THEN
      gate := greatest(gate, now + gate_us);
    END IF;
    shut := gate + amounts[a + 5];  -- When it is full, if one unit was there as the gate opened.
    gap_rest := amounts[a + 6];
    IF (shut, gap_rest) > (tat, rest) THEN
      tat := shut; rest := gap_rest;
    END IF;
    tat := tat + amounts[a + 1];
    rest := rest + amounts[a + 2];
    IF rest >= parts THEN
      tat := tat + 1; rest := rest - parts;
    END IF;
    wait := tat - amounts[a + 3] - now + (rest > amounts[a + 4])::integer;
    IF wait > longest THEN
      worst := i; longest := wait;
    END IF;
    tats[i] := tat; rests[i] := rest; gates[i] := gate; forgets[i] := greatest(tat, shut) + 1;
  END LOOP;
  IF must_fit AND longest > 0 THEN
    RETURN;
  END IF;
  FOR i IN 1 .. cardinality(keys) LOOP
    UPDATE holdfast_coord_1.limits l SET tat = tats[i], rest = rests[i], gate = gates[i], forget = forgets[i]
    WHERE l.key = keys[i];
  END LOOP;
END $$;

-- Takes a place. True, or false where all are taken. Few ever ask, so the table is one at a time's.
CREATE FUNCTION holdfast_coord_1.probe(who bytea, slots integer, lease_us bigint, probe text) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
  now bigint;
BEGIN
  LOCK TABLE holdfast_coord_1.probes IN SHARE ROW EXCLUSIVE MODE;
  now := holdfast_coord_1.now();
  IF (SELECT count(*) FROM holdfast_coord_1.probes p WHERE p.key = who AND p.until > now) >= slots THEN
    RETURN false;
  END IF;
  INSERT INTO holdfast_coord_1.probes VALUES (probe, who, now + lease_us);
  RETURN true;
END $$;

-- Tells a move. The table is one at a time's, so that moves can be read in the order of their moments.
CREATE FUNCTION holdfast_coord_1.publish(ns text, who text, what text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  LOCK TABLE holdfast_coord_1.moves IN SHARE ROW EXCLUSIVE MODE;
  INSERT INTO holdfast_coord_1.moves
  SELECT greatest(holdfast_coord_1.now(), max(m.at) + 1), ns, who, what FROM holdfast_coord_1.moves m;
  PERFORM pg_notify('holdfast_coord_1_' || ns, '');
END $$;

-- name: spend
SELECT worst, longest FROM holdfast_coord_1.spend($1, $2, $3, $4)

-- name: probe
SELECT holdfast_coord_1.probe($1, $2, $3, $4)

-- name: release
DELETE FROM holdfast_coord_1.probes WHERE key = $1 AND id = $2

-- name: publish
SELECT holdfast_coord_1.publish($1, $2, $3)

-- name: last
SELECT coalesce(max(at), 0) FROM holdfast_coord_1.moves

-- name: heard
SELECT at, sender, move, holdfast_coord_1.now() - at FROM holdfast_coord_1.moves
WHERE namespace = $1 AND at > $2 ORDER BY at

-- name: beat
INSERT INTO holdfast_coord_1.replicas AS r VALUES ($1, $2, holdfast_coord_1.now() + $3)
ON CONFLICT (id) DO UPDATE SET until = excluded.until

-- name: replicas
SELECT count(*) FROM holdfast_coord_1.replicas WHERE namespace = $1 AND id <> $2 AND until > holdfast_coord_1.now()

-- name: leave
DELETE FROM holdfast_coord_1.replicas WHERE id = $1

-- name: sweep_limits
DELETE FROM holdfast_coord_1.limits WHERE key IN (
  SELECT key FROM holdfast_coord_1.limits WHERE forget < holdfast_coord_1.now() LIMIT 10000 FOR UPDATE SKIP LOCKED
)

-- name: sweep_probes
DELETE FROM holdfast_coord_1.probes WHERE id IN (
  SELECT id FROM holdfast_coord_1.probes WHERE until < holdfast_coord_1.now() FOR UPDATE SKIP LOCKED
)

-- name: sweep_replicas
DELETE FROM holdfast_coord_1.replicas WHERE id IN (
  SELECT id FROM holdfast_coord_1.replicas WHERE until < holdfast_coord_1.now() FOR UPDATE SKIP LOCKED
)

-- name: sweep_moves
DELETE FROM holdfast_coord_1.moves WHERE at IN (
  SELECT at FROM holdfast_coord_1.moves WHERE at < holdfast_coord_1.now() - 3600000000 FOR UPDATE SKIP LOCKED
)
