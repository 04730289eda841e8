package main

import (
	"github.com/spf13/cobra"

	"github.com/hookline/hookline/internal/app"
	"github.com/hookline/hookline/internal/headroom"
)

func (c *cli) runCmd() *cobra.Command {
	roles := ""
	cmd := &cobra.Command{
		Use:   "run [--roles router,dispatcher,sink,console]",
		Short: "The service; configured by the environment (help config)",
		Long: "The service. It is configured by the environment: see hookline help config.\n" +
			"SIGTERM lets requests under way finish and commits; a second one ends at once.",
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			chosen, err := app.ParseRoles(roles)
			if err != nil {
				return usage(err)
			}
			cfg, err := c.config()
			if err != nil {
				return err
			}
			survivesReaders()
			log := c.logger(cfg)
			cluster, err := preflight(cmd.Context(), cfg, chosen, log)
			if cmd.Context().Err() != nil {
				return nil // told to stop before it had begun
			}
			if err != nil {
				return err
			}
			a, err := app.New(cfg, chosen, app.Deps{Log: log, LogDropped: c.log.Dropped, Version: versionName(), Cluster: cluster})
			if err != nil {
				return err
			}
			defer headroom.Bound()()
			return a.Run(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&roles, "roles", "", "what this process does (default: all)")
	return cmd
}
