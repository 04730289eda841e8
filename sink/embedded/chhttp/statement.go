package chhttp

import (
	"fmt"
	"strings"

	"github.com/hookline/hookline/sink/embedded/chdb"
)

// statement is what has to be known of a query before the engine gets it.
type statement struct {
	insert *chdb.InsertStatement // set for an INSERT that brings its rows
	data   int                   // offset of the first row in the text, when insert is set
	format string                // FORMAT of the result, empty if the query names none
}

// errMultiStatement is refused by a server too, though the library would run both.
var errMultiStatement = newException(62, "Syntax error (Multi-statements are not allowed)", "SYNTAX_ERROR")

// parseStatement looks at text, the beginning of a query or all of it. It reads
// only as much of the grammar as it needs; what it does not know it leaves to the
// engine, which then complains.
func parseStatement(text string) (statement, error) {
	lex := &lexer{text: text}
	first := lex.next()
	for first.is("(") {
		first = lex.next()
	}
	if first.isWord("INSERT") {
		return parseInsert(lex)
	}
	return parseOther(lex, first)
}

// parseInsert reads INSERT [INTO] [TABLE] [FUNCTION] name [(columns)]
// [SETTINGS ...] and then FORMAT f or VALUES, before the rows. INSERT ... SELECT
// and FROM INFILE are statements like any other.
func parseInsert(lex *lexer) (statement, error) {
	tok := lex.next()
	for tok.isWord("INTO") || tok.isWord("TABLE") || tok.isWord("FUNCTION") {
		tok = lex.next()
	}
	tok = afterName(lex, tok)
	settings := -1
	for ; !tok.end(); tok = lex.next() {
		if tok.depth > 0 {
			if tok.depth == 1 && (tok.isWord("SELECT") || tok.isWord("WITH")) {
				return parseOther(lex, tok)
			}
			continue
		}
		switch {
		case tok.isWord("SETTINGS") && settings < 0:
			settings = tok.start
		case tok.isWord("SELECT"), tok.isWord("WITH"), tok.isWord("FROM"), tok.isWord("WATCH"):
			return parseOther(lex, tok)
		case tok.isWord("VALUES"):
			return insertWithRows(lex.text, settings, tok.start, tok.stop, "Values"), nil
		case tok.isWord("FORMAT"):
			name := lex.next()
			if name.kind != kindWord {
				return statement{}, newException(62, "Syntax error: a format's name is missing after FORMAT", "SYNTAX_ERROR")
			}
			if strings.EqualFold(name.text, "Values") {
				return insertWithRows(lex.text, settings, tok.start, name.stop, "Values"), nil
			}
			return insertWithRows(lex.text, settings, tok.start, skipLineEnd(lex.text, name.stop), name.text), nil
		case tok.is(";"):
			return insertWithRows(lex.text, settings, tok.start, len(lex.text), "Values"), nil
		}
	}
	return insertWithRows(lex.text, settings, len(lex.text), len(lex.text), "Values"), nil
}

// afterName passes over the table's name, of which tok is the first token: words,
// quoted names or {parameters}, joined by dots.
func afterName(lex *lexer, tok token) token {
	for {
		if tok.is("{") {
			for !tok.end() && !tok.is("}") {
				tok = lex.next()
			}
		}
		if tok = lex.next(); !tok.is(".") {
			return tok
		}
		tok = lex.next()
	}
}

func insertWithRows(text string, settings, stop, data int, format string) statement {
	in := &chdb.InsertStatement{Head: text[:stop], Format: format}
	if settings >= 0 {
		in.Head, in.Settings = text[:settings], text[settings:stop]
	}
	in.Head, in.Settings = strings.TrimSpace(in.Head), strings.TrimSpace(in.Settings)
	return statement{insert: in, data: data}
}

// skipLineEnd returns where the rows begin behind a format's name: behind blanks
// and at most one line end, as the server has it. Rows may begin with any byte.
func skipLineEnd(text string, at int) int {
	for at < len(text) && (text[at] == ' ' || text[at] == '\t' || text[at] == '\f') {
		at++
	}
	if at < len(text) && text[at] == ';' {
		at++
	}
	if at < len(text) && text[at] == '\r' {
		at++
	}
	if at < len(text) && text[at] == '\n' {
		at++
	}
	return at
}

// parseOther reads to the end of any other statement, looking for its FORMAT
// clause and for what a server would refuse.
func parseOther(lex *lexer, tok token) (statement, error) {
	var st statement
	var before token
	for ; !tok.end(); before, tok = tok, lex.next() {
		switch {
		case tok.is(";"):
			if !lex.next().end() {
				return st, errMultiStatement
			}
			return st, nil
		case tok.isWord("OUTFILE") && before.isWord("INTO"):
			return st, newException(344, "INTO OUTFILE is not for queries over HTTP: take the reply", "SUPPORT_IS_DISABLED")
		case tok.depth == 0 && before.isWord("FORMAT") && tok.kind == kindWord:
			st.format = tok.text
		}
	}
	return st, nil
}

type tokenKind uint8

const (
	kindEnd tokenKind = iota
	kindWord
	kindQuoted // a string or a quoted identifier
	kindSign   // a single character
)

type token struct {
	kind        tokenKind
	text        string
	start, stop int
	depth       int // of parentheses around it
}

func (t token) end() bool               { return t.kind == kindEnd }
func (t token) is(sign string) bool     { return t.kind == kindSign && t.text == sign }
func (t token) isWord(word string) bool { return t.kind == kindWord && strings.EqualFold(t.text, word) }

// lexer cuts SQL into tokens, so that nothing is found inside a string, a quoted
// name or a comment.
type lexer struct {
	text  string
	at    int
	depth int
}

func (l *lexer) next() token {
	l.skipBlanks()
	if l.at >= len(l.text) {
		return token{start: len(l.text), stop: len(l.text)}
	}
	start := l.at
	switch c := l.text[start]; {
	case c == '\'' || c == '"' || c == '`':
		l.at = endOfQuoted(l.text, start)
		return l.token(kindQuoted, start)
	case c == '$' && l.heredoc():
		return l.token(kindQuoted, start)
	case isWordByte(c):
		for l.at < len(l.text) && isWordByte(l.text[l.at]) {
			l.at++
		}
		return l.token(kindWord, start)
	case c == '(' || c == '[' || c == '{':
		l.at++
		tok := l.token(kindSign, start)
		l.depth++
		return tok
	case c == ')' || c == ']' || c == '}':
		l.at++
		l.depth = max(l.depth-1, 0)
		return l.token(kindSign, start)
	default:
		l.at++
		return l.token(kindSign, start)
	}
}

func (l *lexer) token(kind tokenKind, start int) token {
	return token{kind: kind, text: l.text[start:l.at], start: start, stop: l.at, depth: l.depth}
}

func (l *lexer) skipBlanks() {
	for l.at < len(l.text) {
		rest := l.text[l.at:]
		switch {
		case strings.IndexByte(" \t\r\n\f\v\x00", rest[0]) >= 0:
			l.at++
		case strings.HasPrefix(rest, "--"), strings.HasPrefix(rest, "# "), strings.HasPrefix(rest, "#!"):
			l.at += indexOrEnd(rest, "\n")
		case strings.HasPrefix(rest, "/*"):
			l.at += min(2+indexOrEnd(rest[2:], "*/")+2, len(rest))
		default:
			return
		}
	}
}

// heredoc passes over $tag$ ... $tag$, if one begins here.
func (l *lexer) heredoc() bool {
	rest := l.text[l.at:]
	tagEnd := strings.IndexByte(rest[1:], '$')
	if tagEnd < 0 || strings.TrimFunc(rest[1:1+tagEnd], func(r rune) bool { return r < 0x80 && isWordByte(byte(r)) }) != "" {
		return false
	}
	tag := rest[:tagEnd+2]
	stop := strings.Index(rest[len(tag):], tag)
	if stop < 0 {
		return false
	}
	l.at += len(tag) + stop + len(tag)
	return true
}

func indexOrEnd(s, sub string) int {
	if i := strings.Index(s, sub); i >= 0 {
		return i
	}
	return len(s)
}

func endOfQuoted(text string, start int) int {
	quote := text[start]
	for i := start + 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case quote:
			if i+1 >= len(text) || text[i+1] != quote {
				return i + 1
			}
			i++
		}
	}
	return len(text)
}

func isWordByte(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}

// quoteString writes s as an SQL string.
func quoteString(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

// quoteName writes s as an SQL identifier.
func quoteName(s string) string {
	return "`" + strings.NewReplacer("\\", "\\\\", "`", "\\`").Replace(s) + "`"
}

// checkName keeps the names of settings and parameters to what a server knows.
func checkName(what, name string) error {
	for i := range len(name) {
		if c := name[i]; !isWordByte(c) && c != '.' || c >= 0x80 {
			return newException(36, fmt.Sprintf("%s %q is no name", what, name), "BAD_ARGUMENTS")
		}
	}
	if name == "" {
		return newException(36, what+" has no name", "BAD_ARGUMENTS")
	}
	return nil
}
