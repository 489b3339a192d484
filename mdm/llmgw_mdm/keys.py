"""The top-level settings that Claude Code knows, for finding misspelt ones: the client itself does not report them.

From the types that its vendor publishes with the SDK of 2.1.329 (`interface Settings`).
"""

from __future__ import annotations

from typing import Final

VERSION: Final = "2.1.329"
KNOWN: Final = frozenset(
    """
    $schema additionalMarketplaces advisorModel agent agentPushNotifEnabled allowAllClaudeAiMcps
    allowClaudeInChromeWithManagedMcp allowManagedHooksOnly allowManagedMcpServersOnly
    allowManagedPermissionRulesOnly allowNestedModelAccessUnderForceLogin allowedChannelPlugins
    allowedHttpHookUrls allowedMarketplaces allowedMcpServers allowedProviders alwaysThinkingEnabled apiKeyHelper
    appendPlugins askUserQuestionTimeout attribution attributionProject attributionProjectPolicy
    autoCompactEnabled autoCompactWindow autoContinueAtUsageLimit autoDreamEnabled autoMemoryDirectory
    autoMemoryEnabled autoMode autoScrollEnabled autoUpdatesChannel autoUploadSessions availableModels
    availableModelsMatch awsAuthRefresh awsCredentialExport bashEditDiffEnabled bashOutputMaxChars
    blockedMarketplaces channelsEnabled claudeMd claudeMdExcludes cleanupPeriodDays companyAnnouncements
    crossSessionInbound daemonColdStart defaultShell defaultView deniedMcpServers deniedModels
    desktopMcpServersListScope desktopSessionCleanupPeriodDays dialogExpiry disableAgentView disableAllHooks
    disableArtifact disableAutoMode disableBundledSkills disableClaudeAiConnectors disableCommandPluginSources
    disableDeepLinkRegistration disableRemoteControl disableReplyCheck disableSideloadFlags
    disableSkillShellExecution disableWindowsBashCommandSplit disableWorkflows disabledMcpjsonServers editorMode
    effortLevel emojiCompletionEnabled enableAllProjectMcpServers enableArtifact enableWorkflows
    enabledMcpjsonServers enabledPlugins enforceAvailableModels env extraKnownMarketplaces fallbackModel fastMode
    fastModePerSessionOptIn feedbackDrafts feedbackSurveyRate fileCheckpointingEnabled fileSuggestion
    footerLinksRegexes forceLoginGatewayUrl forceLoginMethod forceLoginOrgUUID forceRemoteSettingsRefresh
    gatewayInternalNetworks gcpAuthRefresh hooks httpHookAllowedEnvVars idleCompaction includeCoAuthoredBy
    includeGitInstructions inputNeededNotifEnabled isolatePeerMachines keybindingFlavor language
    managedMcpServers managedSourcesBehavior maxEffortLevel maxProseWidth minimumVersion model modelOverrides
    modelPicker modelPricing modelSettings otelHeadersHelper outputStyle parentSettingsBehavior permissions
    plansDirectory pluginConfigs pluginSuggestionMarketplaces pluginTrustMessage policyHelper prUrlTemplate
    precomputeCompactionEnabled preferredNotifChannel prefersReducedMotion prependPlugins processWrapper
    promptCacheTtl promptSuggestionEnabled proxyAuthHelper remote remoteControlAtStartup requiredMaximumVersion
    requiredMinimumVersion respectGitignore respondToBashCommands sandbox showClearContextOnPlanAccept
    showMessageTimestamps showThinkingSummaries showTurnDuration skillListingBudgetFraction
    skillListingMaxDescChars skillOverrides skipAutoPermissionPrompt skipDangerousModePermissionPrompt
    skipWebFetchPreflight spellcheck spinnerTipsEnabled spinnerTipsOverride spinnerVerbs sshConfigs
    sshHostCommands statusLine strictKnownMarketplaces strictPluginOnlyCustomization subagentPromptCacheTtl
    subagentStatusLine switchModelsOnFlag syncClaudeAiPlugins syncClaudeAiSkills syntaxHighlightingDisabled
    taskOutputMaxChars teammateMode terminalProgressBarEnabled terminalTitleFromRename theme timeFormat timeZone
    todoFeatureEnabled tui ultracode useAutoModeDuringPlan verbose viewMode vimInsertModeRemaps voice
    voiceEnabled wheelScrollAccelerationEnabled workflowKeywordTriggerEnabled workflowSizeGuideline worktree
    wslInheritsWindowsSettings
    """.split()  # noqa: SIM905 -- two hundred names read better as words
)
NEVER: Final = ("forceLoginMethod", "forceLoginOrgUUID")
"""With one of these beside an `apiKeyHelper` Claude Code does not start."""
OURS: Final = (
    *("apiKeyHelper", "allowedProviders", "availableModels", "enforceAvailableModels"),
    *("requiredMinimumVersion", "companyAnnouncements", "policyHelper"),
)
"""What is rendered from other parts of `org.toml`."""
TYPES: Final[dict[str, tuple[type, ...]]] = {
    "apiKeyHelper": (str,),
    "allowedProviders": (list,),
    "availableModels": (list,),
    "companyAnnouncements": (list,),
    "deniedModels": (list,),
    "enforceAvailableModels": (bool,),
    "env": (dict,),
    "managedSourcesBehavior": (str,),
    "permissions": (dict,),
    "policyHelper": (dict,),
    "requiredMinimumVersion": (str,),
    "requiredMaximumVersion": (str,),
}
"""Of settings whose wrong type the client passes over with a warning, or takes for an empty list."""
