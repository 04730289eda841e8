package tidy

import (
	"fmt"
	"path"
	"strconv"
	"strings"
)

// ban says that packages in from, but for those in except, do not import what
// is in to. A pattern is a package, or with "/..." at its end a package and all
// below it; without a dot in its first element it is ours.
type ban struct {
	from, except, to []string
	tests            bool // tests are bound too
	why              string
}

// bans are the import directions. Arrows point down:
// cmd -> internal/app -> pipeline/*, sender, sink -> pipeline.
var bans = []ban{
	{
		from: []string{"pipeline"}, to: []string{"..."},
		tests: true, why: "pipeline holds the nouns and ports, it imports nothing of ours",
	},
	{
		from: []string{"pipeline/..."}, except: []string{"pipeline"}, to: []string{"sender/...", "sink/...", "internal/console/...", "internal/api/..."},
		tests: true, why: "the pipeline reaches sender and sink by the ports in package pipeline",
	},
	{
		from: []string{"sender/...", "sink/..."}, to: []string{"pipeline/dispatch/...", "pipeline/router/..."},
		tests: true, why: "sender and sink know the ports in package pipeline, not who uses them",
	},
	{
		from: []string{"sender/..."}, to: []string{"sink/...", "internal/console/..."},
		tests: true, why: "sender and sink know nothing of each other",
	},
	{
		from: []string{"sink/..."}, to: []string{"sender/...", "internal/console/..."},
		tests: true, why: "sender and sink know nothing of each other",
	},
	{
		from: []string{"..."}, except: []string{"configs/...", "internal/app/...", "cmd/...", "bench/..."}, to: []string{"configs/..."},
		tests: true, why: "a package owns its Config; only app, cmd and bench see all of them",
	},
	{
		from: []string{"..."}, except: []string{"internal/app/...", "cmd/...", "bench/..."}, to: []string{"internal/app"},
		tests: true, why: "only cmd and bench stand above app",
	},
	{
		from: []string{"..."}, except: []string{"internal/app/...", "cmd/...", "bench/...", "configs/..."}, to: []string{"internal/app/..."},
		tests: true, why: "the parts of app are app's own; configs nests their Configs",
	},
	{
		from: []string{"..."}, except: []string{"cmd/..."}, to: []string{"cmd/..."},
		tests: true, why: "nobody stands above cmd",
	},
	{
		from: []string{"..."}, except: []string{"internal/testkit/...", "bench/..."}, to: []string{"internal/testkit/..."},
		why: "testkit is for tests",
	},
	{
		from: []string{"..."}, to: []string{"github.com/twmb/franz-go/..."},
		except: []string{
			"pipeline/kafkax/...", "pipeline/registry/...", "pipeline/router/...", "pipeline/dispatch/...", "pipeline/replay/...",
			"pipeline/control/...",
			"sink/...", "internal/testkit/...", "bench/...", "cmd/...",
			"internal/app/local/...", // kfake, the broker of dev and demo
			"examples/...",           // programs of others
		},
		why: "Kafka is spoken under pipeline/{kafkax,registry,router,dispatch,control,replay} and sink",
	},
	{
		from: []string{"..."}, to: []string{"github.com/valyala/fasthttp/..."},
		except: []string{"sender/...", "internal/testkit/...", "internal/receiver/...", "bench/..."},
		why:    "fasthttp is used by sender and by load tools",
	},
	{
		from: []string{"..."}, except: []string{"sink/..."},
		to:  []string{"github.com/ClickHouse/clickhouse-go/v2/...", "github.com/ClickHouse/ch-go/..."},
		why: "ClickHouse is spoken under sink",
	},
	{
		from: []string{"..."}, except: []string{"sink/embedded/...", "cmd/hookline-engine/..."},
		to: []string{"github.com/ebitengine/purego/..."}, tests: true,
		why: "purego makes a binary dynamic: bin/hookline-engine only",
	},
}

func findImports(t *Tree) []Finding {
	var found []Finding
	for _, f := range t.sources() {
		for _, spec := range f.Go.Imports {
			to := imported(spec.Path.Value)
			for _, b := range bans {
				if f.Test() && (!b.tests || within(to, "internal/testkit/...")) {
					continue
				}
				if anyOf(f.Dir(), b.from) && !anyOf(f.Dir(), b.except) && anyOf(to, b.to) {
					found = append(found, Finding{Path: f.Path, Line: t.line(spec.Pos()), Text: fmt.Sprintf("%s imports %s: %s", f.Dir(), to, b.why)})
				}
			}
		}
	}
	return found
}

// findStatic follows the imports of cmd/hookline through our packages.
func findStatic(t *Tree) []Finding {
	var found []Finding
	seen := make(map[string]bool)
	var follow func(dir, chain string)
	follow = func(dir, chain string) {
		if seen[dir] {
			return
		}
		seen[dir] = true
		for _, f := range t.sources() {
			if f.Dir() != dir || f.Test() {
				continue
			}
			for _, spec := range f.Go.Imports {
				to := imported(spec.Path.Value)
				if within(to, "github.com/ebitengine/purego/...") {
					found = append(found, Finding{Path: f.Path, Line: t.line(spec.Pos()), Text: "bin/hookline stays static, but reaches purego by " + chain})
				} else if ours(to) {
					follow(to, chain+" -> "+to)
				}
			}
		}
	}
	follow("cmd/hookline", "cmd/hookline")
	return found
}

// imported is an import path from its source: without quotes, and ours without
// the module's name.
func imported(quoted string) string {
	p, err := strconv.Unquote(quoted)
	if err != nil {
		return quoted
	}
	if p == Module {
		return "."
	}
	return strings.TrimPrefix(p, Module+"/")
}

// ours tells whether an import, as imported returns it, is of this module. Our
// folders are told from the standard library by the names they begin with.
func ours(p string) bool {
	first, _, _ := strings.Cut(p, "/")
	switch first {
	case ".", "bench", "cmd", "configs", "deployments", "docs", "examples", "internal", "pipeline", "sender", "sink":
		return true
	}
	return false
}

func anyOf(p string, patterns []string) bool {
	for _, pattern := range patterns {
		if within(p, pattern) {
			return true
		}
	}
	return false
}

func within(p, pattern string) bool {
	if pattern == "..." {
		return ours(p)
	}
	if dir, below := strings.CutSuffix(pattern, "/..."); below {
		return p == dir || strings.HasPrefix(p, dir+"/")
	}
	return path.Clean(p) == pattern
}
