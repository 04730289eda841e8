package filter

import (
	"runtime"
	"sync"
	"weak"

	"github.com/hookline/hookline/pipeline"
)

// Cache gives one program to all who compile the same text, so that 100,000
// subscriptions with one filter hold it once. It keeps nothing alive: a program
// goes when the last one who holds it has gone. Safe for concurrent use; the
// zero value is ready.
type Cache struct {
	mu       sync.Mutex
	programs map[string]weak.Pointer[Program] // guarded by mu
}

// Compile is the package's Compile, with programs shared.
func (c *Cache) Compile(expr string, formats []pipeline.Format) (*Program, error) {
	if p := c.get(expr); p != nil {
		if err := p.check(formats); err != nil {
			return nil, err
		}
		return p, nil
	}
	p, err := Compile(expr, formats)
	if err != nil {
		return nil, err
	}
	return c.put(p), nil
}

// Len is the number of programs that are in use.
func (c *Cache) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.programs)
}

func (c *Cache) get(expr string) *Program {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.programs[expr].Value()
}

// put returns the program that others compiled meanwhile, or p.
func (c *Cache) put(p *Program) *Program {
	c.mu.Lock()
	defer c.mu.Unlock()
	if other := c.programs[p.text].Value(); other != nil {
		return other
	}
	if c.programs == nil {
		c.programs = map[string]weak.Pointer[Program]{}
	}
	c.programs[p.text] = weak.Make(p)
	runtime.AddCleanup(p, c.drop, p.text)
	return p
}

// drop forgets a text unless it has been compiled anew since.
func (c *Cache) drop(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.programs[text].Value() == nil {
		delete(c.programs, text)
	}
}
