package task

import (
	"bytes"
	"slices"
	"strconv"

	"github.com/hookline/hookline/pipeline/format/jsonscan"
)

// appendCanonical appends a spelling that equal values share. It serves to
// compare values, nobody reads it.
func appendCanonical(dst []byte, v jsonscan.Value) []byte {
	switch v.Kind() {
	case jsonscan.Number:
		return appendNumber(dst, v.Raw())
	case jsonscan.String:
		return appendLengthed(dst, v.Text())
	case jsonscan.Array:
		dst = append(dst, '[')
		for c := v.Children(); ; {
			item := c.Next()
			if item.Kind() == jsonscan.Missing {
				return append(dst, ']')
			}
			dst = append(appendCanonical(dst, item), ',')
		}
	case jsonscan.Object:
		return appendObject(dst, v)
	case jsonscan.Missing, jsonscan.Null:
		return append(dst, 'n')
	case jsonscan.True, jsonscan.False:
	}
	return append(dst, v.Raw()...)
}

// appendLengthed appends text so that it cannot be taken for anything else.
func appendLengthed(dst, text []byte) []byte {
	dst = strconv.AppendInt(append(dst, '"'), int64(len(text)), 10)
	return append(append(dst, ':'), text...)
}

func appendObject(dst []byte, v jsonscan.Value) []byte {
	members := make([]jsonscan.Value, 0, v.Len())
	for c := v.Children(); ; {
		m := c.Next()
		if m.Kind() == jsonscan.Missing {
			break
		}
		members = append(members, m)
	}
	slices.SortFunc(members, func(a, b jsonscan.Value) int { return bytes.Compare(a.Name(), b.Name()) })
	dst = append(dst, '{')
	for _, m := range members {
		dst = appendCanonical(appendLengthed(dst, m.Name()), m)
		dst = append(dst, ',')
	}
	return append(dst, '}')
}

// appendNumber appends the number without zeros that mean nothing, as digits
// and exponent: 1.50, 15e-1 and 0.15e1 are the same.
func appendNumber(dst, num []byte) []byte {
	raw := num
	negative := num[0] == '-'
	if negative {
		num = num[1:]
	}
	exponent := int64(0)
	if i := bytes.IndexAny(num, "eE"); i >= 0 {
		n, err := strconv.ParseInt(string(bytes.TrimPrefix(num[i+1:], []byte("+"))), 10, 32)
		if err != nil {
			return append(dst, raw...) // far below anything that is written: as it is spelled
		}
		exponent, num = n, num[:i]
	}
	whole, fraction, _ := bytes.Cut(num, []byte("."))
	exponent -= int64(len(fraction))
	digits := append(bytes.Clone(whole), fraction...)
	digits = bytes.TrimLeft(digits, "0")
	short := bytes.TrimRight(digits, "0")
	exponent += int64(len(digits) - len(short))
	if len(short) == 0 {
		return append(dst, '0')
	}
	if negative {
		dst = append(dst, '-')
	}
	dst = append(append(dst, short...), 'e')
	return strconv.AppendInt(dst, exponent, 10)
}
