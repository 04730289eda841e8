package registry

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/hookline/hookline/pipeline/secret"
)

// found is a problem that reading a nested field came upon.
type found struct {
	problem
	line int
}

// nested reads the fields within signing, auth and tls. It never quotes what
// stands there, names of fields neither: any of it may be a secret.
type nested struct{ d *Document }

// member reads one field of a mapping.
type member func(path string, n *yaml.Node)

func (x nested) fail(path string, n *yaml.Node, remedy, why string, args ...any) {
	x.d.src.found = append(x.d.src.found, found{problem{path, fmt.Sprintf(why, args...), remedy}, n.Line})
}

func (x nested) mapping(path string, n *yaml.Node, members map[string]member) {
	n = resolve(n)
	known := "known: " + strings.Join(slices.Sorted(maps.Keys(members)), ", ")
	if n.Kind != yaml.MappingNode {
		x.fail(path, n, known, "want a mapping, got %s", kindName(n))
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], resolve(n.Content[i+1])
		read, ok := members[key.Value]
		switch {
		case !ok || key.Kind != yaml.ScalarNode:
			x.unknown(path, key, members)
		case seen[key.Value]:
			x.fail(path+"."+key.Value, key, "", "the field is there twice")
		default:
			seen[key.Value] = true
			x.d.src.lines[path+"."+key.Value] = key.Line
			read(path+"."+key.Value, value)
		}
	}
}

// usualNames are what others call a field of ours. These words are no secrets.
var usualNames = map[string]string{
	"user": "username", "login": "username", "password": "secret", "pass": "secret", "token": "secret", "key": "secret", "client": "client_id", "url": "token_url",
	"password_ref": "secret_ref", "token_ref": "secret_ref",
}

// unknown tells of a field that there is not.
func (x nested) unknown(path string, key *yaml.Node, members map[string]member) {
	ours := usualNames[key.Value]
	if _, there := members[ours]; there && key.Kind == yaml.ScalarNode {
		x.fail(path, key, "write "+ours, "unknown field %s", key.Value)
		return
	}
	x.fail(path, key, "known: "+strings.Join(slices.Sorted(maps.Keys(members)), ", "), "unknown field")
}

func (x nested) text(into *string) member {
	return func(path string, n *yaml.Node) {
		s, ok := scalar(n)
		if !ok || s == "" {
			x.fail(path, n, "", "want text, got %s", kindName(n))
			return
		}
		*into = s
	}
}

// either reads text, or a reference under the name with _ref behind it.
func (x nested) either(members map[string]member, name string, into *string) {
	members[name] = func(path string, n *yaml.Node) {
		if *into != "" {
			x.fail(path, n, "", "give %s or %s_ref, not both", name, name)
			return
		}
		if x.text(into)(path, n); secret.IsRef(*into) {
			x.fail(path, n, "", "a reference belongs under %s_ref", name)
		}
	}
	members[name+"_ref"] = func(path string, n *yaml.Node) {
		if *into != "" {
			x.fail(path, n, "", "give %s or %s_ref, not both", name, name)
			return
		}
		if v := x.ref(path, n); !v.IsZero() {
			*into = v.Stored()
		}
	}
}

func (x nested) ref(path string, n *yaml.Node) secret.Value {
	s, ok := scalar(n)
	if !ok {
		x.fail(path, n, "write env:NAME or file:/path", "want text, got %s", kindName(n))
		return secret.Value{}
	}
	v, err := secret.Ref(s)
	if err != nil {
		x.fail(path, n, "", "%s", err)
	}
	return v
}

func (x nested) inline(path string, n *yaml.Node) secret.Value {
	s, ok := scalar(n)
	switch {
	case !ok:
		x.fail(path, n, "put it in quotes", "want text, got %s", kindName(n))
	case s == "":
		x.fail(path, n, "", "empty secret")
	case secret.IsRef(s):
		x.fail(path, n, "", "a reference belongs under secret_ref")
	case secret.IsSealed(s):
		x.fail(path, n, "write the secret itself, or a reference", "sealed secrets are made by hookline alone")
	case s == secret.Redacted || strings.HasPrefix(s, "[sealed "):
		x.fail(path, n, "write the secret itself, or a reference", "that is how hookline shows a secret, not a secret")
	default:
		return secret.Plain(s)
	}
	return secret.Value{}
}

// secret reads a secret under secret, or a reference to one under secret_ref.
func (x nested) secret(members map[string]member, name string, into *secret.Value) {
	put := func(read func(string, *yaml.Node) secret.Value) member {
		return func(path string, n *yaml.Node) {
			if !into.IsZero() {
				x.fail(path, n, "", "give %s or %s_ref, not both", name, name)
				return
			}
			*into = read(path, n)
		}
	}
	members[name], members[name+"_ref"] = put(x.inline), put(x.ref)
}

func setSigning(d *Document, n *yaml.Node) (why, remedy string) {
	if isNull(n) {
		return "", ""
	}
	x, s := nested{d}, &SigningDoc{}
	d.Signing = s
	x.mapping("signing", n, map[string]member{
		"scheme": x.text(&s.Scheme), "header": x.text(&s.Header),
		"secrets": func(path string, n *yaml.Node) {
			if n.Kind != yaml.SequenceNode {
				x.fail(path, n, "write a list, newest first", "want a list, got %s", kindName(n))
				return
			}
			for i, item := range n.Content {
				s.Secrets = append(s.Secrets, x.signingSecret(fmt.Sprintf("%s.%d", path, i), resolve(item)))
			}
		},
	})
	return "", ""
}

// signingSecret reads a secret, a reference, or a mapping with a time as well.
func (x nested) signingSecret(path string, n *yaml.Node) (out SecretDoc) {
	x.d.src.lines[path] = n.Line
	if text, ok := scalar(n); ok {
		if secret.IsRef(text) {
			out.Secret = x.ref(path, n)
		} else {
			out.Secret = x.inline(path, n)
		}
		return out
	}
	members := map[string]member{"expires": func(path string, n *yaml.Node) {
		text, ok := scalar(n)
		t, err := time.Parse(time.RFC3339, text)
		if !ok || err != nil || t.IsZero() {
			x.fail(path, n, "write 2026-01-31T12:00:00Z", "not a time")
			return
		}
		out.Expires = t.UTC()
	}}
	x.secret(members, "secret", &out.Secret)
	x.mapping(path, n, members)
	return out
}

func setAuth(d *Document, n *yaml.Node) (why, remedy string) {
	if isNull(n) {
		return "", ""
	}
	x, a := nested{d}, &AuthDoc{}
	d.Auth = a
	x.mapping("auth", n, map[string]member{
		"bearer": func(path string, n *yaml.Node) {
			a.Bearer = &BearerDoc{}
			m := map[string]member{}
			x.secret(m, "secret", &a.Bearer.Secret)
			x.mapping(path, n, m)
		},
		"basic": func(path string, n *yaml.Node) {
			a.Basic = &BasicDoc{}
			m := map[string]member{"username": x.text(&a.Basic.Username)}
			x.secret(m, "secret", &a.Basic.Secret)
			x.mapping(path, n, m)
		},
		"oauth2": func(path string, n *yaml.Node) {
			o := &OAuth2Doc{}
			a.OAuth2 = o
			m := map[string]member{
				"token_url": x.text(&o.TokenURL), "client_id": x.text(&o.ClientID), "audience": x.text(&o.Audience),
				"scopes": x.texts(&o.Scopes),
			}
			x.secret(m, "secret", &o.Secret)
			x.mapping(path, n, m)
		},
		"mtls": func(path string, n *yaml.Node) {
			a.MTLS = &MTLSDoc{}
			m := map[string]member{}
			x.either(m, "cert", &a.MTLS.Cert)
			x.secret(m, "key", &a.MTLS.Key)
			x.mapping(path, n, m)
		},
	})
	return "", ""
}

func (x nested) texts(into *[]string) member {
	return func(path string, n *yaml.Node) {
		if n.Kind != yaml.SequenceNode {
			x.fail(path, n, "", "want a list of text, got %s", kindName(n))
			return
		}
		for _, item := range n.Content {
			var s string
			x.text(&s)(path, resolve(item))
			*into = append(*into, s)
		}
	}
}

func setTLS(d *Document, n *yaml.Node) (why, remedy string) {
	if isNull(n) {
		return "", ""
	}
	x, m := nested{d}, map[string]member{}
	d.TLS = &TLSDoc{}
	x.either(m, "ca", &d.TLS.CA)
	x.mapping("tls", n, m)
	return "", ""
}
