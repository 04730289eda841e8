//go:build !linux

package sender

import "github.com/hookline/hookline/pipeline"

// Batch needs epoll: elsewhere each try has a goroutine of its own.
func (c *Client) Batch(func([]*pipeline.Try)) (pipeline.Batch, bool) { return nil, false }

// batched is nothing here.
type batched struct{ direct bool }

func (*batched) isStale(*conn) bool        { panic("BUG: no batches on this system") }
func (*batched) read([]byte) (int, error)  { panic("BUG: no batches on this system") }
func (*batched) write([]byte) (int, error) { panic("BUG: no batches on this system") }
func (*batched) forget(*conn)              {}
