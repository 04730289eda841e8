package sender

import (
	"bytes"
	"errors"
	"net"
	"os"
	"testing"
	"time"
)

// TestOverdueAnswerIsRead: what has come counts although the time limit has run out, as
// it has for a process that was frozen. Nothing is waited for, and there is a limit.
func TestOverdueAnswerIsRead(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	tcp, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	peer, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	cn, err := newConn(poolKey{}, tcp.(*net.TCPConn))
	if err != nil {
		t.Fatal(err)
	}
	read := func() (got []byte, err error) {
		buf := make([]byte, 4096)
		for {
			n, err := cn.Read(buf)
			got = append(got, buf[:n]...)
			if err != nil {
				return got, err
			}
		}
	}
	awaitBytes := func() { // until something has come
		t.Helper()
		_ = cn.tcp.SetDeadline(time.Now().Add(10 * time.Second))
		one := make([]byte, 1)
		if _, err := cn.tcp.Read(one); err != nil {
			t.Fatal(err)
		}
		_ = cn.tcp.SetDeadline(time.Unix(1, 0))
	}
	cn.begin(nil)
	if _, err := peer.Write([]byte("*200")); err != nil {
		t.Fatal(err)
	}
	awaitBytes()
	if got, err := read(); string(got) != "200" || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read %q, %v; want what has come, and then that time is up", got, err)
	}
	cn.begin(nil)
	go func() { _, _ = peer.Write(bytes.Repeat([]byte("x"), 1<<20)) }()
	awaitBytes()
	deadline := time.Now().Add(10 * time.Second)
	total := 0
	for total < overdueBytes && time.Now().Before(deadline) {
		got, err := read()
		total += len(got)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
	}
	if got, _ := read(); total != overdueBytes || len(got) > 0 {
		t.Errorf("read %d bytes and %d more, want %d", total, len(got), overdueBytes)
	}
}
