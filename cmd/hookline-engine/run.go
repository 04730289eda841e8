package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hookline/hookline/internal/filelock"
	"github.com/hookline/hookline/sink/embedded"
	"github.com/hookline/hookline/sink/embedded/chdb"
	"github.com/hookline/hookline/sink/embedded/chhttp"
)

// Exit codes, as of all hookline commands.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2 // wrong usage or configuration, a data directory in use included
)

// Limits of stopping, together well under what the launcher waits.
const (
	drainLimit = 3 * time.Second // for requests under way
	killLimit  = time.Second     // for those that had to be killed
	closeLimit = 3 * time.Second // for the engine to end its threads
)

type options struct {
	addr, data, lib string
	parent, nice    int
	idle            bool
}

// errUsage marks errors that mean exit code 2.
type errUsage struct{ error }

func (e errUsage) Unwrap() error { return e.error }

func run(args []string, stdout, stderr io.Writer) int {
	opt, err := parseOptions(args, stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitDone
	case err == nil:
		err = serve(opt, stdout, stderr)
	}
	if err == nil {
		return exitDone
	}
	fmt.Fprintf(stderr, "hookline-engine: %v\n", err)
	if errors.As(err, new(errUsage)) {
		return exitUsage
	}
	return exitFailed
}

func parseOptions(args []string, help io.Writer) (options, error) {
	var opt options
	fs := flag.NewFlagSet("hookline-engine", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&opt.addr, "addr", "127.0.0.1:8123", "`host:port` to listen on; anyone who can open it can read and change the data")
	fs.StringVar(&opt.data, "data", "", "`directory` of the data, made if missing; one engine at a time")
	fs.StringVar(&opt.lib, "lib", "", "`path` of libchdb.so (default: $"+embedded.LibraryEnv+", the cache of \"make setup\", beside this program)")
	fs.IntVar(&opt.parent, "parent", 0, "end when the process with this `pid` has ended")
	fs.IntVar(&opt.nice, "nice", 0, "give way to other processes on the same processors, by this `niceness` of 0 to 19")
	fs.BoolVar(&opt.idle, "idle", false, "take only what nobody else needs of the processors (Linux's SCHED_IDLE); where they are never idle, the log stays behind")
	err := fs.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintln(help, "hookline-engine --data DIR [--addr HOST:PORT] [--lib PATH] [--parent PID] [--nice N] [--idle]\n\nThe embedded ClickHouse behind ClickHouse's HTTP interface; SIGTERM ends it.\n\nOptions:")
		fs.SetOutput(help)
		fs.PrintDefaults()
		return opt, err
	case err != nil:
		return opt, errUsage{fmt.Errorf("reading the options: %w (see --help)", err)}
	case fs.NArg() > 0:
		return opt, errUsage{fmt.Errorf("reading the options: unexpected %q (see --help)", fs.Arg(0))}
	case opt.data == "":
		return opt, errUsage{errors.New("reading the options: --data is missing (give the directory of the data)")}
	case opt.parent < 0:
		return opt, errUsage{errors.New("reading the options: --parent is no process id")}
	case opt.nice < 0 || opt.nice > 19:
		return opt, errUsage{errors.New("reading the options: --nice must be 0 to 19")}
	}
	return opt, nil
}

// serve holds the engine from the lock on its directory to its end.
func serve(opt options, stdout, stderr io.Writer) error {
	log := slog.New(slog.NewTextHandler(stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	ctx, stopWatching, err := watchParent(ctx, opt.parent)
	if err != nil {
		return err
	}
	defer stopWatching()

	if err := giveWay(opt.nice, opt.idle); err != nil {
		return err
	}
	path, err := embedded.FindLibrary(opt.lib)
	if err != nil {
		return errUsage{err}
	}
	dirs, err := prepareData(opt.data)
	if err != nil {
		return errUsage{err}
	}
	lock, err := filelock.Acquire(dirs.root, "hookline-engine.lock")
	if err != nil {
		return errUsage{err}
	}
	defer lock.Release()
	if err := dirs.emptySpool(); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", opt.addr)
	if err != nil {
		return fmt.Errorf("listening on %s: %w (choose another --addr)", opt.addr, errors.Unwrap(err))
	}
	defer func() { _ = listener.Close() }()

	lib, err := chdb.Open(path)
	if err != nil {
		return err
	}
	engine, err := chhttp.New(lib, chhttp.Config{DataDir: dirs.engine, SpoolDir: dirs.spool, Log: log})
	if err != nil {
		return fmt.Errorf("%w: %s", err, dirs.engine)
	}
	return answer(ctx, engine, listener, stdout, log)
}

// answer serves until ctx ends, then lets requests under way finish for a while.
func answer(ctx context.Context, engine *chhttp.Server, listener net.Listener, stdout io.Writer, log *slog.Logger) error {
	base, abandon := context.WithCancel(context.Background())
	defer abandon()
	server := &http.Server{
		BaseContext:       func(net.Listener) context.Context { return base },
		Handler:           guard(listener.Addr(), engine),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       5 * time.Minute,
		MaxHeaderBytes:    1 << 20, // queries may come in the URL
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	fmt.Fprintln(stdout, embedded.ReadyPrefix+listener.Addr().String())
	log.Info("answering", "addr", listener.Addr().String(), "clickhouse", engine.Version())
	select {
	case err := <-failed:
		return fmt.Errorf("serving on %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	err := shutDown(server, drainLimit)
	if err != nil {
		abandon() // kills the queries under way
		err = shutDown(server, killLimit)
	}
	if err != nil {
		// Their rows are not acknowledged; what is committed is on disk.
		log.Warn("ending with requests under way", "requests", engine.UnderWay())
		_ = server.Close()
		<-failed
		return nil
	}
	<-failed
	closeEngine(engine, log)
	return nil
}

func shutDown(server *http.Server, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return server.Shutdown(ctx)
}

func closeEngine(engine *chhttp.Server, log *slog.Logger) {
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		engine.Close()
	}()
	timer := time.NewTimer(closeLimit)
	defer timer.Stop()
	select {
	case <-closed:
	case <-timer.C:
		log.Warn("ending before the engine has ended its threads; nothing committed is lost")
	}
}

// dataDirs are the parts of a data directory.
type dataDirs struct{ root, engine, spool string }

func prepareData(data string) (dataDirs, error) {
	root, err := filepath.Abs(data)
	if err != nil {
		return dataDirs{}, fmt.Errorf("finding the data directory %s: %w", data, err)
	}
	dirs := dataDirs{root: root, engine: filepath.Join(root, "clickhouse"), spool: filepath.Join(root, "spool")}
	for _, dir := range []string{dirs.engine, dirs.spool} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return dirs, fmt.Errorf("making the data directory: %w (choose another --data)", err)
		}
	}
	return dirs, nil
}

// emptySpool removes rows of INSERTs that a killed engine left unfinished. They
// were never acknowledged.
func (d dataDirs) emptySpool() error {
	left, err := filepath.Glob(filepath.Join(d.spool, "insert-*"))
	if err != nil {
		return fmt.Errorf("reading %s: %w", d.spool, err)
	}
	for _, path := range left {
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("removing an unfinished INSERT: %w", err)
		}
	}
	return nil
}
