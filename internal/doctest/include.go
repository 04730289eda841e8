package doctest

import (
	"fmt"
	"regexp"
)

//go:generate go run ./include

// included is a block and the comment before it that names its file.
var included = regexp.MustCompile("(?ms)^<!-- (examples/[^ ]+) -->\n\n?```([a-z]*)\n.*?^```$")

// Include puts the files of examples that comments name into the blocks after
// them: <!-- examples/FILE -->, then a fenced block. The file must not have a
// line ``` of its own.
func Include(page []byte, read func(name string) ([]byte, error)) ([]byte, error) {
	var failed error
	out := included.ReplaceAllFunc(page, func(old []byte) []byte {
		m := included.FindSubmatch(old)
		text, err := read(string(m[1]))
		if err != nil {
			failed = fmt.Errorf("including an example: %w", err)
			return old
		}
		return fmt.Appendf(nil, "<!-- %s -->\n\n```%s\n%s```", m[1], m[2], text)
	})
	return out, failed
}
