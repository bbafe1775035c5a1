# fish completion for rootlesskit-docker-proxy, generated from its options

function __rootlesskit-docker-proxy_in_options --description 'no command was given so far'
    set -l tokens (commandline -opc)
    set -e tokens[1]
    while set -q tokens[1]
        switch $tokens[1]
            case --container-ip --container-port --host-ip --host-port --proto
                set -e tokens[1]
            case '-*'
            case '*'
                return 1
        end
        set -e tokens[1]
    end
end

complete -c rootlesskit-docker-proxy -f
complete -c rootlesskit-docker-proxy -n __rootlesskit-docker-proxy_in_options -l container-ip -x -d 'ADDRESS of the container'
complete -c rootlesskit-docker-proxy -n __rootlesskit-docker-proxy_in_options -l container-port -x -d 'PORT of the container'
complete -c rootlesskit-docker-proxy -n __rootlesskit-docker-proxy_in_options -l host-ip -x -d 'ADDRESS of the host to publish on'
complete -c rootlesskit-docker-proxy -n __rootlesskit-docker-proxy_in_options -l host-port -x -d 'PORT of the host'
complete -c rootlesskit-docker-proxy -n __rootlesskit-docker-proxy_in_options -l proto -x -d 'PROTOCOL of the port'
complete -c rootlesskit-docker-proxy -n __rootlesskit-docker-proxy_in_options -l use-listen-fd -d 'ignored'
complete -c rootlesskit-docker-proxy -n __rootlesskit-docker-proxy_in_options -l help -s h -d 'show help'
complete -c rootlesskit-docker-proxy -n __rootlesskit-docker-proxy_in_options -l version -s v -d 'print the version'
complete -c rootlesskit-docker-proxy -x -a '(__fish_complete_subcommand - --container-ip --container-port --host-ip --host-port --proto)'
