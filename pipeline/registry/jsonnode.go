package registry

import (
	"bytes"
	"errors"
	"io"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"go.yaml.in/yaml/v3"
)

// jsonNodes parses a stream of JSON values to the nodes that YAML would give:
// YAML refuses tabs and surrogate pairs, which JSON has.
func jsonNodes(file string, src []byte) ([]*yaml.Node, error) {
	r := jsonReader{dec: jsontext.NewDecoder(bytes.NewReader(src)), lines: lines{src: src, line: 1}}
	var nodes []*yaml.Node
	for {
		n, err := r.node()
		if errors.Is(err, io.EOF) {
			return nodes, nil
		}
		if err != nil {
			e := &FieldError{File: file, Line: r.lines.at(r.dec.InputOffset()), Why: "not valid JSON"}
			var syntax *jsontext.SyntacticError
			if errors.As(err, &syntax) {
				e.Line = r.lines.at(syntax.ByteOffset)
				e.Why += ": " + oneLine(syntax.Err.Error())
			}
			return nil, e
		}
		nodes = append(nodes, n)
	}
}

type jsonReader struct {
	dec   *jsontext.Decoder
	lines lines
}

// lines counts lines up to offsets that only grow.
type lines struct {
	src    []byte
	offset int64
	line   int
}

func (l *lines) at(offset int64) int {
	if offset = min(offset, int64(len(l.src))); offset > l.offset {
		l.line += bytes.Count(l.src[l.offset:offset], []byte("\n"))
		l.offset = offset
	}
	return l.line
}

func (r *jsonReader) node() (*yaml.Node, error) {
	tok, err := r.dec.ReadToken()
	if err != nil {
		return nil, err
	}
	n := &yaml.Node{Kind: yaml.ScalarNode, Line: r.lines.at(r.dec.InputOffset())}
	switch tok.Kind() {
	case '{', '[':
		n.Kind = yaml.MappingNode
		if tok.Kind() == '[' {
			n.Kind = yaml.SequenceNode
		}
		for k := r.dec.PeekKind(); k != '}' && k != ']'; k = r.dec.PeekKind() {
			child, err := r.node()
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, child)
		}
		_, err = r.dec.ReadToken()
		return n, err
	case '"':
		n.Tag, n.Value = "!!str", tok.String()
	case '0':
		if n.Tag, n.Value = "!!int", tok.String(); strings.ContainsAny(n.Value, ".eE") {
			n.Tag = "!!float"
		}
	case 't', 'f':
		n.Tag, n.Value = "!!bool", tok.String()
	default:
		n.Tag = "!!null"
	}
	return n, nil
}
