# fish completion for rootlessctl, generated from its options

function __rootlessctl_in_options --description 'no command was given so far'
    set -l tokens (commandline -opc)
    set -e tokens[1]
    while set -q tokens[1]
        switch $tokens[1]
            case --socket
                set -e tokens[1]
            case '-*'
            case '*'
                return 1
        end
        set -e tokens[1]
    end
end

complete -c rootlessctl -f
complete -c rootlessctl -n __rootlessctl_in_options -l debug -d 'debug mode'
complete -c rootlessctl -n __rootlessctl_in_options -l socket -r -F -d 'PATH to api.sock'
complete -c rootlessctl -n __rootlessctl_in_options -l help -s h -d 'show help'
complete -c rootlessctl -n __rootlessctl_in_options -l version -s v -d 'print the version'
complete -c rootlessctl -n __rootlessctl_in_options -a list-ports -d 'List ports'
complete -c rootlessctl -n '__fish_seen_subcommand_from list-ports' -l json -d 'Prints as JSON'
complete -c rootlessctl -n '__fish_seen_subcommand_from list-ports' -l wide -d 'show more about each port'
complete -c rootlessctl -n '__fish_seen_subcommand_from list-ports' -l help -s h -d 'show help'
complete -c rootlessctl -n __rootlessctl_in_options -a add-ports -d 'Add ports'
complete -c rootlessctl -n '__fish_seen_subcommand_from add-ports' -l json -d 'Prints as JSON'
complete -c rootlessctl -n '__fish_seen_subcommand_from add-ports' -l proxy-protocol -x -d 'begin each connection to the namespace with a header of this version of the PROXY protocol, which names the client'
complete -c rootlessctl -n '__fish_seen_subcommand_from add-ports' -l help -s h -d 'show help'
complete -c rootlessctl -n __rootlessctl_in_options -a remove-ports -d 'Remove ports'
complete -c rootlessctl -n '__fish_seen_subcommand_from remove-ports' -l help -s h -d 'show help'
complete -c rootlessctl -n __rootlessctl_in_options -a info -d 'Show info'
complete -c rootlessctl -n '__fish_seen_subcommand_from info' -l json -d 'Prints as JSON'
complete -c rootlessctl -n '__fish_seen_subcommand_from info' -l help -s h -d 'show help'
