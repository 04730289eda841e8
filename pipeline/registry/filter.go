package registry

import (
	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/filter"
)

// compile gives the filter's program, shared where the policy has a cache.
func (p *Policy) compile(d *Document) (*filter.Program, error) {
	formats := make([]pipeline.Format, len(d.Format))
	for i, f := range d.Format {
		formats[i] = pipeline.Format(f)
	}
	if p.filters == nil {
		return filter.Compile(d.Filter, formats)
	}
	return p.filters.Compile(d.Filter, formats)
}

// filter compiles the document's filter and keeps the program for attach.
func (c *checker) filter(d *Document, pol *Policy) {
	if d.Filter == "" {
		return
	}
	p, err := pol.compile(d)
	if err != nil {
		c.add("filter", "see docs/filters.md", "%s", err)
		return
	}
	d.src.program = p
}

// attach gives the subscription its filter. One that does not compile, which
// Check would have said, lets nothing through.
func (d *Document) attach(s *pipeline.Subscription, pol *Policy) {
	if d.Filter == "" {
		return
	}
	if d.src.program == nil {
		d.src.program, _ = pol.compile(d)
	}
	s.Filter = d.Filter
	if d.src.program != nil {
		s.Extra = d.src.program
	}
}
