// Package local runs stand-ins for what hookline needs beside it, for "hookline
// dev" and "hookline demo": a Kafka-compatible broker in this process and the
// embedded ClickHouse as a child process.
package local

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/hookline/hookline/internal/filelock"
)

// Broker is a Kafka-compatible broker of one node. Its data is in a directory:
// in memory it would keep everything for ever.
type Broker struct {
	cluster *kfake.Cluster
	addr    string
	once    sync.Once
	lock    *filelock.Lock
}

// ClusterID is the id of every local cluster. It is part of the identity of an
// event, so that it must not change when a data directory is used again.
const ClusterID = "hookline-local"

// StartBroker listens on addr (host:port; port 0: a free one) with its data in
// dir.
func StartBroker(addr, dir string) (*Broker, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("starting the local broker: %q is not host:port", addr)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return nil, fmt.Errorf("starting the local broker: %q is not a port", port)
	}
	// Before anything is opened: a second broker on the same data would write its
	// own state over that of the first, even if it only starts and ends.
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("starting the local broker: %w (choose another --data)", err)
	}
	lock, err := filelock.Acquire(dir, "hookline.lock")
	if err != nil {
		return nil, fmt.Errorf("starting the local broker: %w", err)
	}
	// kfake itself always asks for 127.0.0.1 and advertises where it listens.
	listen := func(network, _ string) (net.Listener, error) { return net.Listen(network, addr) }
	cluster, err := kfake.NewCluster(
		kfake.NumBrokers(1),
		kfake.Ports(number),
		kfake.ListenFn(listen),
		kfake.ClusterID(ClusterID),
		kfake.DataDir(filepath.Join(dir, "kafka")),
		// hookline's own limit is below the broker's.
		kfake.BrokerConfigs(map[string]string{"message.max.bytes": strconv.Itoa(128 << 20)}),
	)
	if err != nil {
		lock.Release()
		if op, ok := errors.AsType[*net.OpError](err); ok {
			err = op.Err
		}
		return nil, fmt.Errorf("starting the local broker: %s: %w (choose another --kafka-addr)", addr, err)
	}
	if number == 0 {
		addr = cluster.ListenAddrs()[0]
	} else {
		addr = net.JoinHostPort(host, port)
	}
	return &Broker{cluster: cluster, addr: addr, lock: lock}, nil
}

// Addr is the bootstrap address.
func (b *Broker) Addr() string { return b.addr }

// Close ends the broker and writes its state. Further calls do nothing.
func (b *Broker) Close() {
	b.once.Do(func() {
		b.cluster.Close()
		b.lock.Release()
	})
}
