-- What an insert brings is a part with one file for all columns. By ClickHouse's default a large one has a file or two for
-- each column and index, and as many for the projection: making them, and removing them after a merge, took more than half
-- of an insert's time. Parts beyond this size, which merges make, are as they were.
ALTER TABLE {{.DB}}.attempts {{.OnCluster}} MODIFY SETTING min_bytes_for_wide_part = 67108864;

ALTER TABLE {{.DB}}.events {{.OnCluster}} MODIFY SETTING min_bytes_for_wide_part = 67108864;
