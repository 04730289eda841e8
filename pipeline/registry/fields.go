package registry

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// setter puts a node's value into the document, or says why not.
type setter func(d *Document, n *yaml.Node) (why, remedy string)

// fields are the fields that a subscription has.
var fields = map[string]setter{
	"id":            text(func(d *Document) *string { return &d.ID }),
	"tenant":        text(func(d *Document) *string { return &d.Tenant }),
	"description":   text(func(d *Document) *string { return &d.Description }),
	"url":           text(func(d *Document) *string { return &d.URL }),
	"format":        texts(func(d *Document) *[]string { return &d.Format }),
	"events":        texts(func(d *Document) *[]string { return &d.Events }),
	"resthook":      text(func(d *Document) *string { return &d.Resthook }),
	"filter":        text(func(d *Document) *string { return &d.Filter }),
	"ordering":      text(func(d *Document) *string { return &d.Ordering }),
	"on_exhausted":  text(func(d *Document) *string { return &d.OnExhausted }),
	"timeout":       text(func(d *Document) *string { return &d.Timeout }),
	"retries":       integer(func(d *Document) **int { return &d.Retries }),
	"rate":          text(func(d *Document) *string { return &d.Rate }),
	"concurrency":   integer(func(d *Document) **int { return &d.Concurrency }),
	"headers":       setHeaders,
	"content_mode":  text(func(d *Document) *string { return &d.ContentMode }),
	"auth":          setAuth,
	"signing":       setSigning,
	"tls":           setTLS,
	"state":         text(func(d *Document) *string { return &d.State }),
	"disable_after": text(func(d *Document) *string { return &d.DisableAfter }),
}

func text(of func(*Document) *string) setter {
	return func(d *Document, n *yaml.Node) (string, string) {
		s, ok := scalar(n)
		if !ok {
			return "want text, got " + kindName(n), ""
		}
		*of(d) = s
		return "", ""
	}
}

// scalar is a node's text. An id of digits and one e is a number to YAML: what
// is written counts, not what YAML makes of it.
func scalar(n *yaml.Node) (string, bool) {
	if n.Kind != yaml.ScalarNode {
		return "", false
	}
	switch n.ShortTag() {
	case "!!str", "!!int", "!!float", "!!timestamp":
		return n.Value, true
	}
	return "", false
}

// texts accepts a list of text, or one text for a list of one.
func texts(of func(*Document) *[]string) setter {
	return func(d *Document, n *yaml.Node) (string, string) {
		if s, ok := scalar(n); ok {
			*of(d) = []string{s}
			return "", ""
		}
		if n.Kind != yaml.SequenceNode {
			return "want text or a list of text, got " + kindName(n), ""
		}
		list := make([]string, 0, len(n.Content))
		for i, item := range n.Content {
			s, ok := scalar(resolve(item))
			if !ok {
				return fmt.Sprintf("item %d: want text, got %s", i, kindName(resolve(item))), ""
			}
			list = append(list, s)
		}
		if len(list) == 0 {
			return "the list is empty", "leave the field out for the default"
		}
		*of(d) = list
		return "", ""
	}
}

func integer(of func(*Document) **int) setter {
	return func(d *Document, n *yaml.Node) (string, string) {
		if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" {
			return "want a whole number, got " + kindName(n), ""
		}
		i, err := strconv.Atoi(n.Value)
		if err != nil {
			return fmt.Sprintf("%s is not a whole number in decimal", clip(n.Value)), ""
		}
		*of(d) = &i
		return "", ""
	}
}

func setHeaders(d *Document, n *yaml.Node) (why, remedy string) {
	if n.Kind != yaml.MappingNode {
		return "want a mapping of names to values, got " + kindName(n), "write {X-Team: ops}"
	}
	d.Headers = make(map[string]string, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, okName := scalar(resolve(n.Content[i]))
		value, ok := scalar(resolve(n.Content[i+1]))
		switch _, twice := d.Headers[name]; {
		case !okName:
			return "a header's name is text", ""
		case !ok:
			return "header " + clip(name) + ": want text, got " + kindName(resolve(n.Content[i+1])), "put it in quotes"
		case twice:
			return "header " + clip(name) + " is there twice", ""
		}
		d.Headers[name] = value
	}
	return "", ""
}

func field(n *yaml.Node, name string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i+1]
		}
	}
	return nil
}

// resolve follows an alias to what it stands for.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		return n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool {
	return n.Kind == 0 || n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}

func kindName(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		switch n.ShortTag() {
		case "!!null":
			return "nothing"
		case "!!bool":
			return "true or false"
		case "!!int", "!!float":
			return "a number"
		}
		return "text"
	case yaml.DocumentNode, yaml.AliasNode:
	}
	return "nothing"
}

// nearest names the known field that a mistyped one probably meant.
func nearest(name string) string {
	plain := func(s string) string { return strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(s)) }
	known := slices.Sorted(maps.Keys(fields))
	for _, k := range known {
		if plain(k) == plain(name) || plain(k) == plain(name)+"s" || plain(k)+"s" == plain(name) {
			return "did you mean " + k + "?"
		}
	}
	return "known: " + strings.Join(known, ", ")
}

func firstByte(src []byte) byte {
	if t := bytes.TrimLeft(src, " \t\r\n"); len(t) > 0 {
		return t[0]
	}
	return 0
}
