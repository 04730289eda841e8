package tidy

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

const root = "../.."

func TestRepository(t *testing.T) {
	tree, err := Load(os.DirFS(root))
	if err != nil {
		t.Fatal(err)
	}
	if len(tree.sources()) < 10 {
		t.Fatalf("loaded %d sources only: is %q the root?", len(tree.sources()), root)
	}
	for _, f := range tree.Check(Rules()) {
		t.Error(f)
	}
}

// findStatic sees our packages only; the go command sees all.
func TestHooklineDependsOnNoPurego(t *testing.T) {
	if _, err := os.Stat(filepath.Join(root, "cmd", "hookline")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "list", "-deps", "./cmd/hookline")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	deps := strings.Fields(string(out))
	if !slices.Contains(deps, Module+"/cmd/hookline") {
		t.Fatalf("go list names %d packages, cmd/hookline is not among them", len(deps))
	}
	for _, dep := range deps {
		if strings.HasPrefix(dep, "github.com/ebitengine/purego") {
			t.Errorf("bin/hookline depends on %s", dep)
		}
	}
}

// Each case is a tree in which one rule is broken, and the finding that must
// come of it: without one a rule may have stopped to check anything.
func TestPlantedViolations(t *testing.T) {
	long := "// Package p is one.\npackage p\n\nfunc f() {\n" + strings.Repeat("\t_ = 0\n", 69) + "}\n"
	own := `"` + Module + `/`
	tests := []struct {
		name  string
		rule  string
		files map[string]string
		want  string // start of the only finding
	}{
		{"noun imports ours", "imports", planted("pipeline/a.go", own+`sender"`), "pipeline/a.go:4: imports: pipeline imports sender"},
		{"dispatch imports sender", "imports", planted("pipeline/dispatch/a.go", own+`sender"`), "pipeline/dispatch/a.go:4: imports: pipeline/dispatch imports sender"},
		{"dispatch's test imports sink", "imports", planted("pipeline/dispatch/a_test.go", own+`sink/schema"`), "pipeline/dispatch/a_test.go:4"},
		{"sender imports router", "imports", planted("sender/sign/a.go", own+`pipeline/router"`), "sender/sign/a.go:4"},
		{"sink imports dispatch", "imports", planted("sink/a.go", own+`pipeline/dispatch"`), "sink/a.go:4"},
		{"sink imports sender", "imports", planted("sink/a.go", own+`sender"`), "sink/a.go:4"},
		{"sender imports sink", "imports", planted("sender/a.go", own+`sink"`), "sender/a.go:4"},
		{"configs from below", "imports", planted("pipeline/match/a.go", own+`configs"`), "pipeline/match/a.go:4"},
		{"app from configs", "imports", planted("configs/a.go", own+`internal/app"`), "configs/a.go:4"},
		{"app's part from below", "imports", planted("internal/console/a.go", own+`internal/app/admin"`), "internal/console/a.go:4"},
		{"cmd from bench", "imports", planted("bench/a.go", own+`cmd/hookline"`), "bench/a.go:4"},
		{"testkit in the product", "imports", planted("sink/a.go", own+`internal/testkit"`), "sink/a.go:4"},
		{"kgo in the matcher", "imports", planted("pipeline/match/a.go", `"github.com/twmb/franz-go/pkg/kgo"`), "pipeline/match/a.go:4"},
		{"fasthttp in the router", "imports", planted("pipeline/router/a.go", `"github.com/valyala/fasthttp"`), "pipeline/router/a.go:4"},
		{"ClickHouse in the console", "imports", planted("internal/console/a.go", `"github.com/ClickHouse/clickhouse-go/v2"`), "internal/console/a.go:4"},
		{"purego in the sink", "imports", planted("sink/a.go", `"github.com/ebitengine/purego"`), "sink/a.go:4"},
		{"purego behind hookline", "static", map[string]string{
			"cmd/hookline/main.go": "package main\n\nimport _ " + own + "sink\"\n",
			"sink/a.go":            "package sink\n\nimport _ " + own + "sink/embedded\"\n",
			"sink/embedded/a.go":   "package embedded\n\nimport _ \"github.com/ebitengine/purego\"\n",
		}, "sink/embedded/a.go:3: static: bin/hookline stays static, but reaches purego by cmd/hookline -> sink -> sink/embedded"},
		{"long function", "func-lines", map[string]string{"p/a.go": long}, "p/a.go:4: func-lines: f has 71 lines"},
		{"long file", "file-lines", map[string]string{"p/a.go": "package p\n" + strings.Repeat("\n", 800)}, "p/a.go:1: file-lines: 801 lines"},
		{"function without comment", "doc", planted("p/a.go", "", "func F() {}"), "p/a.go:6: doc: F "},
		{"method without comment", "doc", planted("p/a.go", "", "// T is one.\ntype T[K any] struct{}\n\nfunc (T[K]) M() {}"), "p/a.go:9: doc: M "},
		{"type without comment", "doc", planted("p/a.go", "", "type T struct{}"), "p/a.go:6: doc: T "},
		{"constant without comment", "doc", planted("p/a.go", "", "const (\n\tA = 1 // A is one.\n\tB = 2\n)"), "p/a.go:8: doc: B "},
		{"package without comment", "doc", map[string]string{"p/a.go": "package p\n"}, "p/a.go:1: doc: package p "},
		{"vague package", "package-name", map[string]string{"p/a.go": "package util" + "s\n"}, "p/a.go:1: package-name"},
		{"vague folder", "package-name", map[string]string{"common/a.go": "package p\n"}, "common/a.go:1: package-name"},
		{"put off", "words", map[string]string{"docs/a.md": "One.\nTO" + "DO: two.\n"}, "docs/a.md:2: words"},
		{"machine's path", "words", map[string]string{"p/a.go": "package p\n\nconst dir = \"/wor" + "k/main\"\n"}, "p/a.go:3: words"},
		{"undocumented field", "env", map[string]string{
			"configs/example.env": "HOOKLINE_KNOWN=1\n",
			"sink/a.go":           "package sink\n\ntype c struct {\n\tA string `env:\"KNOWN\"`\n\tB string `env:\"SECRET,required\"`\n}\n",
		}, "sink/a.go:5: env: SECRET "},
		{"undocumented name", "env", planted("p/a.go", "", "const a = \"HOOKLINE_HIDDEN\""), "p/a.go:6: env: HOOKLINE_HIDDEN "},
		{"undocumented look-up", "env", planted("p/a.go", `"os"`, "var a = os.Getenv(\"HOOKLINE_HIDDEN\")"), "p/a.go:6: env: HOOKLINE_HIDDEN "},
		{"exception from no rule", "allow", planted("p/a.go", "", "//tidy:allow nothing because"), "p/a.go:6: allow"},
		{"exception without reason", "allow", planted("p/a.go", "", "//tidy:allow doc\nfunc F() {}"), "p/a.go:6: allow"},
		{"exception without use", "allow", planted("p/a.go", "", "//tidy:allow doc because\n\nfunc f() {}"), "p/a.go:6: allow"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			found := check(t, tt.files)
			found = slices.DeleteFunc(found, func(f Finding) bool { return f.Rule != tt.rule })
			if len(found) != 1 || !strings.HasPrefix(found[0].String(), tt.want) {
				t.Errorf("got %q, want one that begins with %q", found, tt.want)
			}
		})
	}
}

func TestWhatRulesAllow(t *testing.T) {
	own := `"` + Module + `/`
	tests := map[string]map[string]string{
		"downward imports":         planted("pipeline/dispatch/a.go", own+`pipeline"`),
		"kgo where it belongs":     planted("pipeline/dispatch/a.go", `"github.com/twmb/franz-go/pkg/kgo"`),
		"testkit in a test":        planted("pipeline/a_test.go", own+`internal/testkit"`),
		"kgo in any test":          planted("pipeline/match/a_test.go", `"github.com/twmb/franz-go/pkg/kgo"`),
		"app's part in configs":    planted("configs/a.go", own+`internal/app/admin"`),
		"configs in cmd":           planted("cmd/hookline/a.go", own+`configs"`),
		"purego in the engine":     planted("cmd/hookline-engine/a.go", `"github.com/ebitengine/purego"`),
		"seventy lines":            planted("p/a.go", "", "func f() {\n"+strings.Repeat("\t_ = 0\n", 68)+"}"),
		"comment of a group":       planted("p/a.go", "", "// These are two.\nconst (\n\tA = 1\n\tB = 2\n)"),
		"well-known method":        planted("p/a.go", "", "// T is one.\ntype T int\n\nfunc (T) String() string { return \"\" }"),
		"generated code":           {"p/a.go": "// Code generated by x. DO NOT EDIT.\n\npackage p\n\nfunc F() {}\n"},
		"test data":                {"p/testdata/a.go": "package util\n"},
		"a module inside":          {"tools/go.mod": "module x\n", "tools/a.go": "package util\n"},
		"a template's name":        {"a.sh": "mktemp tmp.X" + "XXXXX\n"},
		"variables that tests use": planted("p/a.go", `"os"`, "var a = os.Getenv(\"HOOKLINE_TEST_X\")"),
		"variable of a document":   {"README.md": "Set `HOOKLINE_X`.\n", "p/a.go": "// Package p is one.\npackage p\n\nconst x = \"HOOKLINE_X\"\n"},
		"exception on the line":    planted("p/a.go", "", "func F() {} //tidy:allow doc because"),
		"exception above":          planted("p/a.go", "", "//tidy:allow doc because\nfunc F() {}"),
		"exception in a comment":   planted("p/a.go", "", "// f is long.\n//\n//tidy:allow func-lines because\nfunc f() {\n"+strings.Repeat("\t_ = 0\n", 90)+"}"),
		"exception in a text":      {"docs/a.md": "<!-- tidy:allow words it is quoted -->\nTO" + "DO\n"},
	}
	for name, files := range tests {
		t.Run(name, func(t *testing.T) {
			for _, f := range check(t, files) {
				t.Error(f)
			}
		})
	}
}

// planted is a tree of one documented file with an import on line 4 and, from
// line 6 on, a declaration.
func planted(name, imports string, decl ...string) map[string]string {
	return map[string]string{
		name: "// Package p is one.\npackage p\n\nimport _ " + imports + "\n\n" + strings.Join(decl, "\n") + "\n",
	}
}

func check(t *testing.T, files map[string]string) []Finding {
	t.Helper()
	fsys := fstest.MapFS{}
	for name, text := range files {
		text = strings.Replace(text, "import _ \n", "\n", 1)
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
	}
	tree, err := Load(fsys)
	if err != nil {
		t.Fatal(err)
	}
	return tree.Check(Rules())
}
