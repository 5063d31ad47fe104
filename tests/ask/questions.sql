-- Ordinary questions of analysts, one a line, which the locks around SQL must let pass and answer as DuckDB does.
SELECT count(*) FROM videos
SELECT label, count(*) FROM detections GROUP BY label ORDER BY 2 DESC
SELECT kind, label, count(*) FROM segments GROUP BY ALL ORDER BY ALL
FROM detections SELECT label, avg(score) AS sure GROUP BY label HAVING sure > 0.1 ORDER BY label
TABLE segments
VALUES (1, 'a'), (2, 'b')
WITH a AS (SELECT * FROM videos), b AS (FROM a) SELECT uri FROM b ORDER BY 1
WITH videos AS (SELECT 'mine' AS uri) SELECT uri FROM videos
WITH x AS MATERIALIZED (SELECT 1 AS a), y AS NOT MATERIALIZED (SELECT 2 AS b) SELECT * FROM x, y
WITH a AS (WITH b AS (SELECT 1 AS n) FROM b), c AS (FROM a) SELECT n + 1 AS m FROM c
WITH t AS (SELECT 1 AS a) SELECT (WITH u AS (SELECT a FROM t) SELECT a FROM u), (WITH t AS (SELECT 9 AS z) SELECT z FROM t)
WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t WHERE n < 5) SELECT * FROM t ORDER BY n
WITH RECURSIVE t(a, b) USING KEY (a) AS (SELECT 1, 2 UNION SELECT a, b + 1 FROM t WHERE b < 5) FROM t
WITH RECURSIVE t(a, b) USING KEY (a) AS (SELECT 1, 2 UNION SELECT t.a, t.b + 1 FROM t JOIN recurring.t AS r ON r.a = t.a WHERE t.b < 5) FROM t
SELECT * FROM memory.main.videos ORDER BY uri
SELECT uri FROM videos SEMI JOIN detections USING (video_id) ORDER BY uri
SELECT uri FROM videos ANTI JOIN detections USING (video_id)
SELECT d.label, v.uri FROM detections AS d JOIN videos AS v USING (video_id, pipeline) ORDER BY ALL LIMIT 7
SELECT count(*) FROM detections d FULL OUTER JOIN segments s ON d.video_id = s.video_id AND d.time_s BETWEEN s.start_s AND s.end_s
SELECT d.time_s, s.start_s FROM (FROM detections WHERE label = 'car') d ASOF LEFT JOIN segments s ON d.video_id = s.video_id AND d.time_s >= s.start_s ORDER BY ALL
SELECT v.uri, t.c FROM videos v, LATERAL (SELECT count(*) AS c FROM detections d WHERE d.video_id = v.video_id) t ORDER BY ALL
SELECT a.x, b.y FROM (SELECT unnest([1, 2, 3]) AS x) a POSITIONAL JOIN (SELECT unnest([4, 5]) AS y) b
SELECT uri, (SELECT max(score) FROM detections d WHERE d.video_id = v.video_id) AS best FROM videos v ORDER BY ALL
SELECT count(*) FROM videos v CROSS JOIN range(3)
SELECT label FROM detections GROUP BY label HAVING count(*) > 1 QUALIFY rank() OVER (ORDER BY label) = 1
SELECT label, time_s, row_number() OVER (PARTITION BY label ORDER BY time_s, video_id) AS n, lag(time_s, 1, 0) OVER w FROM detections WINDOW w AS (PARTITION BY label ORDER BY time_s, video_id) ORDER BY ALL
SELECT time_s, sum(score) OVER (ORDER BY time_s, video_id ROWS BETWEEN 2 PRECEDING AND CURRENT ROW EXCLUDE TIES) AS s FROM detections ORDER BY ALL
SELECT label, first_value(time_s IGNORE NULLS) OVER (PARTITION BY label ORDER BY time_s RANGE BETWEEN 1 PRECEDING AND 1 FOLLOWING) AS f FROM detections ORDER BY ALL
SELECT DISTINCT ON (label) label, score FROM detections ORDER BY label, score DESC
SELECT label, count(*) FILTER (WHERE score > 0.5) AS sure, string_agg(DISTINCT label, ',' ORDER BY label) FROM detections GROUP BY label ORDER BY ALL
SELECT GROUPING(label) AS g, label, count(*) FROM detections GROUP BY ROLLUP (label) ORDER BY ALL
SELECT label, count(*) FROM detections GROUP BY GROUPING SETS ((label), ()) ORDER BY ALL
PIVOT detections ON label IN ('car', 'person') USING count(*) GROUP BY video_id ORDER BY video_id
SELECT * FROM (PIVOT detections ON label IN ('car', 'person') USING sum(score) AS s, count(*) AS c GROUP BY pipeline)
UNPIVOT (SELECT min(score) AS low, max(score) AS high FROM detections) ON low, high INTO NAME which VALUE score
SELECT label FROM detections UNION SELECT label FROM segments ORDER BY 1
SELECT label FROM detections EXCEPT SELECT label FROM segments ORDER BY 1
SELECT label FROM detections INTERSECT ALL SELECT label FROM segments ORDER BY 1
SELECT 1 AS a UNION ALL BY NAME SELECT 2 AS b ORDER BY ALL
(SELECT 1 AS a) UNION (SELECT 2) ORDER BY a LIMIT 1
SELECT list_transform([1, 2, 3], lambda x: x + 1), list_filter([1, 2], lambda x: x > 1), list_reduce([1, 2, 3], lambda x, y: x + y)
SELECT [x * 2 FOR x IN [1, 2, 3] IF x > 1]
SELECT {'a': 1, 'b': [1, 2, 3]}.b[1:2], struct_pack(a := 1), MAP {'x': 1}['x'], [1, 2][-1]
SELECT s.a, s['b'] FROM (SELECT unnest([{'a': 1, 'b': 'x'}, {'a': 2, 'b': 'y'}]) AS s)
SELECT unnest([{'a': 1}, {'a': 2}], recursive := true)
SELECT array_agg(label ORDER BY label)[1:3], list(DISTINCT label ORDER BY label), arg_max(label, score), median(score) FROM detections
SELECT quantile_cont(score, [0.1, 0.9]), approx_count_distinct(label), mode(kind), histogram(label) FROM segments
SELECT COLUMNS('.*_s') FROM segments ORDER BY ALL
SELECT min(COLUMNS('.*_s')) FROM segments
SELECT * EXCLUDE (recorded_date) REPLACE (upper(label) AS label) RENAME (score AS sure) FROM segments ORDER BY ALL
SELECT * LIKE '%_s' FROM segments ORDER BY ALL
SELECT label.upper(), what: label FROM detections ORDER BY ALL LIMIT 3
SELECT uri.split('/')[-1] AS name FROM videos ORDER BY 1
SELECT regexp_extract(uri, '(\d+)-(\d+)', 2), regexp_replace(uri, '.*/', '', 'g') FROM videos ORDER BY ALL
SELECT uri FROM videos WHERE uri LIKE '%mp\4' ESCAPE '\' OR uri NOT ILIKE 'X%' AND uri GLOB '*mp4' AND uri ^@ 's3' ORDER BY ALL
SELECT date_trunc('day', recorded_at), extract(hour FROM recorded_at), strftime(recorded_at, '%Y-%m') FROM videos ORDER BY ALL
SELECT recorded_at AT TIME ZONE 'Europe/Berlin', recorded_at + INTERVAL '3 days 2 hours', recorded_at::DATE - 3 FROM videos ORDER BY ALL
SELECT time_bucket(INTERVAL '1 day', recorded_at) AS day, count(*) FROM videos GROUP BY day ORDER BY day
SELECT day, count(uri) FROM generate_series(DATE '2026-02-28', DATE '2026-03-03', INTERVAL 1 DAY) t(day) LEFT JOIN videos ON recorded_at::DATE = day GROUP BY day ORDER BY day
SELECT CASE WHEN score > .5 THEN 'sure' ELSE 'not' END AS how, score::DECIMAL(10, 2), TRY_CAST(label AS INTEGER) FROM detections ORDER BY ALL
SELECT coalesce(NULL, 'x'), nullif('a', ''), ifnull(NULL, 0), greatest(1, 2), if(true, 1, 2), 1 IS DISTINCT FROM NULL
SELECT 1e10, 1e-3 * 2, 1.5e300, 1_000, .5, 12345678901234567890, 123456789012345678901234567890.5, -7 // 2, 7 % 3, 2 ** 3, 5!
SELECT score * 1e3, avg(score) / 1e3 FROM detections GROUP BY score ORDER BY ALL
SELECT 'it''s', E'a\nb', $$dollar 'q'$$, 'ü🎥', x'AB', '\x00'::BLOB, NULL, true, false
SELECT DATE '2020-01-01', TIME '12:00:00', TIMESTAMP '2020-01-01 00:00:00', TIMESTAMPTZ '2020-01-01 00:00:00+02', INTERVAL 3 DAY
SELECT 1 AS "say ""x""", 2 AS "käse", 3 AS "select"
SELECT CAST(NULL AS STRUCT(a INTEGER, b VARCHAR[])), [1, 2, 3]::INTEGER[3], 'a'::ENUM ('a', 'b'), '12'::HUGEINT, NULL::MAP(VARCHAR, INTEGER)
SELECT json_extract('{"a": [1]}', '$.a[0]'), '{"a": 1}'::JSON -> 'a', '{"a": "b"}'::JSON ->> '$.a', to_json({'a': 1})
SELECT key, value FROM json_each('{"a": 1, "b": 2}')
SELECT count(*) FROM range(10) t(i) WHERE i > 3 AND (i < 5 OR i = 7)
SELECT 3 > ALL (SELECT unnest([1, 2])), 1 IN (SELECT 2), EXISTS (FROM videos), (1, 2) IN (SELECT 1, 2)
SELECT label COLLATE NOCASE AS l, count(*) FROM segments GROUP BY ALL ORDER BY ALL
SELECT label FROM detections ORDER BY score DESC NULLS FIRST, label ASC, video_id LIMIT 3 OFFSET 2
SELECT count(*) FROM (SELECT label FROM detections LIMIT 10%)
SELECT substring('hello' FROM 2 FOR 3), trim(BOTH 'x' FROM 'xax'), position('l' IN 'hello'), 'hello'[2:3], lpad('a', 3, '0'), printf('%03d', 7)
SELECT try(1 / 0), try_cast('x' AS INTEGER), typeof(1), pg_typeof(1), md5('x'), hash(1)
DESCRIBE detections
DESCRIBE SELECT uri, count(*) AS n FROM videos GROUP BY uri
FROM (DESCRIBE videos) SELECT column_name, column_type
SELECT column_name, min, max FROM (SUMMARIZE SELECT time_s, label FROM detections) ORDER BY ALL
SUMMARIZE segments
