package endpoint

import (
	"fmt"
	"strconv"
	"strings"
)

// PortRange is a range of TCP ports, both ends included.
type PortRange struct{ From, To uint16 }

// PortSet is a set of ports as ranges. Empty means port 443 only.
type PortSet []PortRange

// ParsePorts reads entries such as "443" and "8000-8099".
func ParsePorts(entries []string) (PortSet, error) {
	var set PortSet
	for _, entry := range entries {
		entry = strings.TrimSpace(entry)
		from, to, ranged := strings.Cut(entry, "-")
		if !ranged {
			to = from
		}
		a, errA := strconv.ParseUint(from, 10, 16)
		b, errB := strconv.ParseUint(to, 10, 16)
		if errA != nil || errB != nil || a == 0 || b < a {
			return nil, fmt.Errorf("parsing ports: %q is not a port or a range of ports (write 443 or 8000-8099)", entry)
		}
		set = append(set, PortRange{uint16(a), uint16(b)})
	}
	return set, nil
}

// Has tells whether port is in the set.
func (s PortSet) Has(port uint16) bool {
	for _, r := range s {
		if r.From <= port && port <= r.To {
			return true
		}
	}
	return len(s) == 0 && port == 443
}

// String gives the set as ParsePorts reads it, joined by commas.
func (s PortSet) String() string {
	if len(s) == 0 {
		return "443"
	}
	parts := make([]string, len(s))
	for i, r := range s {
		parts[i] = strconv.Itoa(int(r.From))
		if r.To != r.From {
			parts[i] += "-" + strconv.Itoa(int(r.To))
		}
	}
	return strings.Join(parts, ",")
}
