package match

import "strings"

// Wildcard stands for any run of characters in a subscription's event names,
// the empty run too. Every other character stands for itself, case included.
const Wildcard = "*"

// glob is a name with wildcards behind a literal prefix, which the index has
// compared already. Matching takes linear time: each inner part is looked for
// once, leftmost first, which is right since a wildcard takes any run.
type glob struct {
	inner  []string // parts between wildcards, in order, none empty
	suffix string   // behind the last wildcard
}

// splitGlob takes pattern, which has a wildcard, apart.
func splitGlob(pattern string) (prefix string, g glob) {
	first, last := strings.Index(pattern, Wildcard), strings.LastIndex(pattern, Wildcard)
	g.suffix = pattern[last+1:]
	for part := range strings.SplitSeq(pattern[first:last+1], Wildcard) {
		if part != "" {
			g.inner = append(g.inner, part)
		}
	}
	return pattern[:first], g
}

// matches tells whether rest, a name without the glob's prefix, fits.
func (g *glob) matches(rest string) bool {
	if !strings.HasSuffix(rest, g.suffix) {
		return false
	}
	rest = rest[:len(rest)-len(g.suffix)]
	for _, part := range g.inner {
		i := strings.Index(rest, part)
		if i < 0 {
			return false
		}
		rest = rest[i+len(part):]
	}
	return true
}
