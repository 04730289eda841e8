package registry

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// ParseDocuments reads and checks subscriptions written in YAML or JSON: one or
// several documents, each a mapping with a list "subscriptions", such a list
// itself, or one subscription. file is named in messages only. The error joins
// everything that is wrong, as FieldErrors.
func ParseDocuments(file string, src []byte, pol *Policy) ([]Document, error) {
	p := parser{file: file}
	nodes, err := p.nodes(src)
	if err != nil {
		return nil, err
	}
	for _, n := range nodes {
		p.top(n)
	}
	if len(nodes) == 0 {
		p.fail(0, "", "no subscriptions", "write a list under subscriptions:")
	}
	first := map[string]*Document{}
	for i := range p.docs {
		d := &p.docs[i]
		p.errs = append(p.errs, d.Check(pol)...)
		if other, ok := first[d.ID]; ok && d.ID != "" {
			p.errs = append(p.errs, d.at(problem{"id", fmt.Sprintf("%.140q is there twice", d.ID), fmt.Sprintf("first on line %d", other.src.line)}))
		} else {
			first[d.ID] = d
		}
	}
	if len(p.errs) > 0 {
		return nil, join(p.errs)
	}
	return p.docs, nil
}

type parser struct {
	file string
	docs []Document
	errs []*FieldError
}

func (p *parser) fail(line int, path, why, remedy string) {
	p.errs = append(p.errs, &FieldError{File: p.file, Line: line, Path: path, Why: why, Remedy: remedy})
}

// top reads one document of the stream.
func (p *parser) top(n *yaml.Node) {
	n = resolve(n)
	switch {
	case n.Kind == yaml.MappingNode && (field(n, "id") != nil || field(n, "url") != nil):
		p.subscription(n, "")
	case n.Kind == yaml.MappingNode:
		p.envelope(n)
	case n.Kind == yaml.SequenceNode:
		p.list(n, "")
	case isNull(n): // an empty document between two separators
	default:
		p.fail(n.Line, "", "want subscriptions, got "+kindName(n), "write a list under subscriptions:")
	}
}

func (p *parser) envelope(n *yaml.Node) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], resolve(n.Content[i+1])
		switch {
		case key.Value != "subscriptions":
			p.fail(key.Line, clip(key.Value), "unknown field", "the document has one field, subscriptions")
		case value.Kind != yaml.SequenceNode:
			p.fail(value.Line, "subscriptions", "want a list, got "+kindName(value), "")
		default:
			p.list(value, "subscriptions")
		}
	}
	if len(n.Content) == 0 {
		p.fail(n.Line, "", "no subscriptions", "write a list under subscriptions:")
	}
}

func (p *parser) list(n *yaml.Node, path string) {
	for i, item := range n.Content {
		at := path + "[" + strconv.Itoa(i) + "]"
		if item = resolve(item); item.Kind != yaml.MappingNode {
			p.fail(item.Line, at, "want a subscription, got "+kindName(item), "")
			continue
		}
		p.subscription(item, at)
	}
}

func (p *parser) subscription(n *yaml.Node, path string) {
	d := Document{src: source{file: p.file, path: path, line: n.Line, lines: map[string]int{}, broken: map[string]bool{}}}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], resolve(n.Content[i+1])
		name := key.Value
		f, known := fields[name]
		_, twice := d.src.lines[name]
		d.src.lines[name] = key.Line
		var why, remedy string
		switch {
		case key.Kind != yaml.ScalarNode:
			name, why = "", "a field's name is text"
		case name == "<<":
			why, remedy = "merge keys are not supported", "write the fields out"
		case !known:
			name, why, remedy = clip(name), "unknown field", nearest(name)
		case twice:
			why = "the field is there twice"
		default:
			why, remedy = f(&d, value)
		}
		if why != "" {
			d.src.broken[name] = true
			p.errs = append(p.errs, d.at(problem{name, why, remedy}))
		}
	}
	p.docs = append(p.docs, d)
}

// nodes parses the text to nodes, JSON too, so that both have the same messages.
func (p *parser) nodes(src []byte) ([]*yaml.Node, error) {
	if c := firstByte(src); c == '{' || c == '[' {
		nodes, jsonErr := jsonNodes(p.file, src)
		if jsonErr == nil {
			return nodes, nil
		}
		// YAML's flow style looks like JSON too.
		if nodes, err := p.yamlNodes(src); err == nil && !strings.HasSuffix(p.file, ".json") {
			return nodes, nil
		}
		return nil, jsonErr
	}
	return p.yamlNodes(src)
}

func (p *parser) yamlNodes(src []byte) ([]*yaml.Node, error) {
	var nodes []*yaml.Node
	dec := yaml.NewDecoder(strings.NewReader(string(src)))
	for {
		var n yaml.Node
		err := dec.Decode(&n)
		if errors.Is(err, io.EOF) {
			return nodes, nil
		}
		if err != nil {
			return nil, yamlError(p.file, err)
		}
		if n.Kind == yaml.DocumentNode && len(n.Content) == 1 {
			nodes = append(nodes, n.Content[0])
		}
	}
}

// yamlError gives the library's "yaml: line 3: why" our form.
func yamlError(file string, err error) error {
	e := &FieldError{File: file, Why: strings.TrimPrefix(err.Error(), "yaml: ")}
	if rest, ok := strings.CutPrefix(e.Why, "line "); ok {
		if number, why, ok := strings.Cut(rest, ": "); ok {
			if n, err := strconv.Atoi(number); err == nil {
				e.Line, e.Why = n, why
			}
		}
	}
	e.Why = "not valid YAML: " + oneLine(e.Why)
	return e
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func clip(s string) string {
	const most = 60 // bytes of a foreign name in a message
	if len(s) > most {
		s = s[:most] + "..."
	}
	return strings.Trim(strconv.Quote(s), `"`)
}
