package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hookline/hookline/configs"
)

func (c *cli) versionCmd() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: exactly(),
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(c.out, versionLine())
			return err
		},
	}
}

func versionLine() string {
	return fmt.Sprintf("hookline %s %s %s/%s", versionName(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// versionName is the linker's, else the module's, else "devel".
func versionName() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
}

func (c *cli) helpCmd(root *cobra.Command) *cobra.Command {
	help := &cobra.Command{
		Use: "help [command or topic]", Short: "Explain a command, the configuration (help config), or what is listed below as a topic",
		Args: cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			cmd, rest, err := root.Find(args)
			if err != nil || cmd == nil || len(rest) > 0 && cmd.HasParent() || len(args) > 0 && cmd == root {
				return usagef("reading arguments: hookline help: no command %q (see hookline help)", strings.Join(args, " "))
			}
			return cmd.Help()
		},
	}
	var format string
	config := &cobra.Command{
		Use: "config", Short: "Every HOOKLINE_ variable with its default and meaning", Args: exactly(),
		RunE: func(*cobra.Command, []string) error {
			switch format {
			case "text":
				return configs.WriteText(c.out, configs.Fields())
			case "env":
				return configs.WriteEnv(c.out, configs.Fields())
			case "markdown":
				return configs.WriteMarkdown(c.out, configs.Fields())
			}
			return usagef("reading options: hookline help config: --format: %q is not one of text, env, markdown", format)
		},
	}
	config.Flags().StringVar(&format, "format", "text", "text, env or markdown")
	help.AddCommand(config, c.commandsCmd(root))
	return help
}
