package chhttp

import (
	"errors"
	"testing"
)

func TestParseInsert(t *testing.T) {
	for _, tc := range []struct{ name, text, head, settings, format, rows string }{
		{"native", "INSERT INTO t (a, b) FORMAT Native\nROWS", "INSERT INTO t (a, b)", "", "Native", "ROWS"},
		{"settings", "INSERT INTO `d`.t (a) SETTINGS x='FORMAT TSV', y=1 FORMAT CSV ROWS", "INSERT INTO `d`.t (a)", "SETTINGS x='FORMAT TSV', y=1", "CSV", "ROWS"},
		{"rows begin with a line end", "insert into t format RowBinary\n\nROWS", "insert into t", "", "RowBinary", "\nROWS"},
		{"values", "INSERT INTO t VALUES (1),(2)", "INSERT INTO t", "", "Values", " (1),(2)"},
		{"values after settings", "INSERT INTO t SETTINGS a=1 VALUES (1)", "INSERT INTO t", "SETTINGS a=1", "Values", " (1)"},
		{"no format", "INSERT INTO t (a)\n", "INSERT INTO t (a)", "", "Values", ""},
		{"names like keywords", "INSERT INTO settings.format (values) FORMAT TSV\nROWS", "INSERT INTO settings.format (values)", "", "TSV", "ROWS"},
		{"parameter as the name", "INSERT INTO {d:Identifier}.{t:Identifier} (a) FORMAT TSV\nROWS", "INSERT INTO {d:Identifier}.{t:Identifier} (a)", "", "TSV", "ROWS"},
		{"comments", "/* SELECT */ INSERT -- FORMAT x\n INTO t FORMAT TSV ROWS", "/* SELECT */ INSERT -- FORMAT x\n INTO t", "", "TSV", "ROWS"},
		{"table function", "INSERT INTO FUNCTION null('a Int') (a) FORMAT TSV\nROWS", "INSERT INTO FUNCTION null('a Int') (a)", "", "TSV", "ROWS"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			st, err := parseStatement(tc.text)
			if err != nil || st.insert == nil {
				t.Fatalf("parseStatement(%q) = %+v, %v; want an INSERT with rows", tc.text, st, err)
			}
			got := [4]string{st.insert.Head, st.insert.Settings, st.insert.Format, tc.text[st.data:]}
			if want := [4]string{tc.head, tc.settings, tc.format, tc.rows}; got != want {
				t.Errorf("parseStatement(%q)\n got %q\nwant %q", tc.text, got, want)
			}
		})
	}
}

func TestParseOther(t *testing.T) {
	for text, format := range map[string]string{
		"SELECT 1":                                 "",
		"SELECT 1 FORMAT JSON":                     "JSON",
		"SELECT 1 format tsv;":                     "tsv",
		"SELECT 'x FORMAT JSON' -- FORMAT CSV\n":   "",
		"SELECT 1 FORMAT JSONEachRow SETTINGS a=1": "JSONEachRow",
		"(SELECT 1) UNION ALL (SELECT * FROM format(CSV, 'a')) FORMAT Native": "Native",
		"INSERT INTO t SELECT 1":                   "",
		"INSERT INTO t (a) (SELECT 1)":             "",
		"INSERT INTO t WITH 1 AS x SELECT x":       "",
		"SELECT $tag$ ; FORMAT x $tag$ FORMAT TSV": "TSV",
		"SELECT 'it''s; \\' FORMAT x' FORMAT CSV":  "CSV",
		"SELECT \"a;b\" FROM t /* ; */ ;":          "",
	} {
		st, err := parseStatement(text)
		if err != nil || st.insert != nil || st.format != format {
			t.Errorf("parseStatement(%q) = %+v, %v; want format %q and no rows", text, st, err, format)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for text, code := range map[string]int{
		"SELECT 1; SELECT 2":             62,
		"CREATE TABLE a; DROP TABLE b;":  62,
		"SELECT 1 INTO OUTFILE '/tmp/x'": 344,
		"INSERT INTO t FORMAT 'x'":       62,
	} {
		_, err := parseStatement(text)
		var e *exception
		if !errors.As(err, &e) || e.code != code {
			t.Errorf("parseStatement(%q) = %v, want code %d", text, err, code)
		}
	}
}

func FuzzParseStatement(f *testing.F) {
	for _, s := range []string{"INSERT INTO t FORMAT TSV\n1", "SELECT $a$ x", "INSERT INTO {a", "'\\", "/*", "((((", "INSERT INTO a.b.c.", "$é$"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		st, err := parseStatement(text)
		if err == nil && st.insert != nil && (st.data < 0 || st.data > len(text)) {
			t.Errorf("rows at %d of %d bytes", st.data, len(text))
		}
	})
}
