package main

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/hookline/hookline/internal/receiver"
)

func (c *cli) receiverCmd() *cobra.Command {
	cfg := receiver.Config{MaxRequests: -1}
	cmd := &cobra.Command{
		Use:   "receiver",
		Short: "A test endpoint; with --ledger it writes down what it gets",
		Long: "A test endpoint. With --ledger it writes down what it gets, before it answers.\n\n" +
			"A path may have a rule of its own, whatever follows it:\n" +
			"  /ok                   200\n" +
			"  /status/503           that status\n" +
			"  /gone                 410\n" +
			"  /slow?ms=250          200 after that long\n" +
			"  /fail?first=2         503 to the first 2 requests of each delivery, then 200\n" +
			"  /down?from=5s&for=40s 503 in that window of the receiver's life, else 200\n" +
			"Other paths answer as the options say.",
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := checkAddr(cfg.Addr)
			if err == nil {
				err = cfg.Check()
			}
			if err != nil {
				return usagef("reading options: hookline receiver: %w", err)
			}
			r, err := receiver.New(cfg)
			if errors.Is(err, syscall.EADDRINUSE) {
				return fmt.Errorf("%w (choose another --addr)", err)
			}
			if err != nil {
				return err
			}
			fmt.Fprintf(c.out, "receiver: ready: %s\n", r.URL())
			if err := r.Run(cmd.Context()); err != nil {
				return fmt.Errorf("running the receiver: %w", err)
			}
			fmt.Fprintf(c.out, "receiver: %s\n", count(r.Total(), "request"))
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.Addr, "addr", "127.0.0.1:9000", "address to listen on")
	f.IntVar(&cfg.Status, "status", 200, "the answer's status")
	f.DurationVar(&cfg.Delay, "delay", 0, "wait before answering")
	f.IntVar(&cfg.FailFirst, "fail-first", 0, "answer 503 to the first N requests of each delivery")
	f.StringVar(&cfg.Ledger, "ledger", "", "append a JSON line for each request to this file")
	f.BoolVar(&cfg.KeepBodies, "keep-bodies", false, "put the bodies into the ledger, not only their hashes")
	return cmd
}
